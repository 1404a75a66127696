"""The tables of the protocol, a file each. A new file needs no other change: it is imported and registers itself."""

from demur.studies.paper.material import PAPER_TABLES as PAPER_TABLES
from demur.studies.table import import_all

import_all(__name__, __path__)
