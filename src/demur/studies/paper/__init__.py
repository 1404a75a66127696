"""The paper's protocol: one module a table or figure, each giving a tidy DataFrame, for any models."""

from demur.studies.paper.run import TITLES, Paper, run_paper
from demur.studies.paper.subject import Subject

__all__ = ["TITLES", "Paper", "Subject", "run_paper"]
