"""The tables of a study, a file each. A new file here needs no other change: it is imported and registers itself."""

from demur.studies.study.material import STUDY_TABLES as STUDY_TABLES
from demur.studies.table import import_all

import_all(__name__, __path__)
