"""Judges of text: requests and texts go in, a verdict on each comes out."""

from demur.judges.chat import Asker, ChatJudge
from demur.judges.complies import CompliesJudge
from demur.judges.dictionary import REFUSAL_DICTIONARY, refused
from demur.judges.http_asker import HTTPAsker
from demur.judges.judge import Judge, Verdict, judge_each
from demur.judges.table import JUDGES
from demur.judges.verdicts import read_verdict

__all__ = [
    "JUDGES",
    "REFUSAL_DICTIONARY",
    "Asker",
    "ChatJudge",
    "CompliesJudge",
    "HTTPAsker",
    "Judge",
    "Verdict",
    "judge_each",
    "read_verdict",
    "refused",
]
