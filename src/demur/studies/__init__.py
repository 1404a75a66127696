"""Studies: the protocol, from recordings to tidy tables."""

from demur.recording import ModelAsker
from demur.studies.compare import Comparison, compare_runs
from demur.studies.hardening import harden
from demur.studies.judging import judge_of
from demur.studies.recovery import recovery_table, success_table
from demur.studies.run import run_study
from demur.studies.study import PROMPT_SETS, Study, read_study

__all__ = [
    "PROMPT_SETS",
    "Comparison",
    "ModelAsker",
    "Study",
    "compare_runs",
    "harden",
    "judge_of",
    "read_study",
    "recovery_table",
    "run_study",
    "success_table",
]
