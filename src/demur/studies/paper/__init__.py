"""The paper's protocol: one module a table or figure, each giving a tidy DataFrame, for any models."""

from demur.studies.paper.material import PAPER_TABLES, PaperMaterial
from demur.studies.paper.run import Paper, run_paper
from demur.studies.paper.subject import Subject

__all__ = ["PAPER_TABLES", "Paper", "PaperMaterial", "Subject", "run_paper"]
