"""Verdicts as a client reads them: OpenAI's moderation results, and the numbers behind them.

In: what each guard has said of each choice. Out: the values of the fields `moderation` and `demur`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from demur.defenses import Verdict
from demur.serve.guards import Watched
from demur.serve.schema import ModerationAnswer, ModerationResult, ModerationResults

CATEGORY = "jailbreak"


def share_of_limit(score: float, limit: float) -> float:
    """A score as a number from 0 to 1, as moderation results have it: 0.5 at the guard's limit, rising with the score.

    Scores are distances from what is usual among harmless generations; score / (score + limit) keeps their order. It is
    no probability. 0 before the first look, 1 for what cannot be judged.
    """
    if math.isnan(score):
        return 0.0
    if math.isinf(score):
        return 1.0
    above = max(score, 0.0)
    return above / (above + limit) if limit > 0 else float(above > 0)


def moderation_of(
    watched: Sequence[Watched],
    choices: Sequence[Mapping[str, Verdict]],
    model: str,
    prompt: Mapping[str, float] | None = None,
    prompt_flagged: bool = False,
) -> ModerationAnswer:
    """The moderation of an answer: a result a choice, in the order of choices; and one of the prompt where guards look
    at its own state. prompt : their scores of it."""
    limits = {one.name: float(one.guard.threshold_) for one in watched}
    scores = [share_of_limit(score, limits[name]) for name, score in (prompt or {}).items()]
    given = [_result(model, prompt_flagged, max(scores))] if scores else []
    return ModerationAnswer(
        input=ModerationResults(model=model, results=given),
        output=ModerationResults(model=model, results=[_of_choice(watched, one, model) for one in choices]),
    )


def numbers_of(watched: Sequence[Watched], verdicts: Mapping[str, Verdict]) -> list[dict[str, Any]]:
    """What each guard has said of one choice, as plain values: its score, the limit, and where it stopped."""
    found = []
    for one in watched:
        verdict = verdicts.get(one.name)
        if verdict is not None:
            score = verdict.score if math.isfinite(verdict.score) else None
            values = {"score": score, "stopped_at": verdict.stopped_at, "step": verdict.step, "looks": verdict.looks}
            found.append({"guard": one.name, "limit": float(one.guard.threshold_), **values})
    return found


def _of_choice(watched: Sequence[Watched], verdicts: Mapping[str, Verdict], model: str) -> ModerationResult:
    said = [(verdicts[one.name], one.guard.threshold_) for one in watched if one.name in verdicts]
    score = max((share_of_limit(verdict.score, limit) for verdict, limit in said), default=0.0)
    return _result(model, any(verdict.stopped_at for verdict, _ in said), score)


def _result(model: str, flagged: bool, score: float) -> ModerationResult:
    return ModerationResult(
        model=model,
        flagged=flagged,
        categories={CATEGORY: flagged},
        category_scores={CATEGORY: score},
        category_applied_input_types={CATEGORY: ["text"]},
    )
