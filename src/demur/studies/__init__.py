"""Studies: the protocol, from recordings to tidy tables."""

from demur.recording import ModelAsker
from demur.studies.compare.compare import Comparison, compare_runs
from demur.studies.hardening import harden
from demur.studies.study.judging import judge_of
from demur.studies.study.material import Material
from demur.studies.study.recovery import recovery_table, success_table
from demur.studies.study.results import PROMPT_SETS, Study, read_study
from demur.studies.study.run import run_study
from demur.studies.study.tables import STUDY_TABLES

__all__ = [
    "PROMPT_SETS",
    "STUDY_TABLES",
    "Comparison",
    "Material",
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
