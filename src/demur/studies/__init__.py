"""Studies: the protocol, from recordings to tidy tables."""

from demur.studies.run import run_study
from demur.studies.study import PROMPT_SETS, Study, read_study

__all__ = ["PROMPT_SETS", "Study", "read_study", "run_study"]
