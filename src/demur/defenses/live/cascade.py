"""A cascade: what a guard flags on the way is held, and a judge is asked whether to stop it.

In: generations that a streaming guard has flagged, and their texts so far. Out: which of them to stop, and what asking
cost. The guard is cheap and sees every step; the judge is dear and sees only what the guard flags.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.defenses.after.guard_model import GuardModel
from demur.defenses.after.self_examine import SelfExamine
from demur.defenses.defense import Defense
from demur.errors import InputError
from demur.models import Model


def judge_for(on_flag: str, judge: Defense | Model | str | Path | None, model: Model) -> Defense | None:
    """Who is asked about a flagged generation; None where it is stopped at once.

    judge : a defense that reads texts, or a guard model or its name; by default the guarded model examines itself.
    """
    if on_flag not in ("stop", "ask", "repair"):
        raise InputError(f"on_flag is {on_flag!r}; expected 'stop', 'ask' or 'repair'")
    if on_flag != "ask":
        if judge is not None:
            raise InputError("a judge is asked with on_flag='ask' alone; give that, or leave judge out")
        return None
    if model.tokenizer is None:
        raise InputError(f"{model.name}: has no tokenizer, so there is no text to ask about; use on_flag='stop'")
    if judge is None:
        return SelfExamine(model)
    return GuardModel(judge) if isinstance(judge, Model | str | Path) else judge


class Hearing:
    """Asks about the flagged generations of a batch: at the first flag, and about the whole answer in the end.

    released : bool ``[batch]``, those that go on although they are flagged. flagged_at : int64 ``[batch]``, the step of
        the first flag, 0 where there was none. asked : how often the judge was. seconds : wall time of asking.

    So a generation costs two questions at most. Before there is a text nothing is asked, and the generation goes on.
    Where the judge's verdict cannot be read, the guard's stands.
    """

    def __init__(self, judge: Defense, prompts: Sequence[str]) -> None:
        self.judge, self.prompts, count = judge, list(prompts), len(prompts)
        self.released: NDArray[np.bool_] = np.zeros(count, dtype=bool)
        self.flagged_at: NDArray[np.int64] = np.zeros(count, dtype=np.int64)
        self.asked: NDArray[np.int64] = np.zeros(count, dtype=np.int64)
        self.seconds: NDArray[np.float64] = np.zeros(count)

    def hear(self, rows: Sequence[int], texts: Sequence[str | None], step: int) -> NDArray[np.bool_]:
        """Whether to stop each of these rows, whose texts so far are given; those that are not are released."""
        verdicts = np.zeros(len(rows), dtype=bool)
        said = [place for place, text in enumerate(texts) if text and text.strip()]
        if said:
            asked = np.asarray(rows)[said]
            found = self.judge([self.prompts[row] for row in asked], [texts[place] or "" for place in said])
            verdicts[said] = found.blocked | found.unread
            self.asked[asked] += 1
            self.seconds[asked] += found.seconds
        here = np.asarray(rows, dtype=np.int64)
        self.flagged_at[here] = np.where(self.flagged_at[here] > 0, self.flagged_at[here], max(1, step))
        self.released[here] = ~verdicts
        return verdicts

    def columns(self, row: int) -> dict[str, Any]:
        """What became of a row, for a table."""
        return {
            "flagged_at": int(self.flagged_at[row]),
            "asked": int(self.asked[row]),
            "asking_seconds": float(self.seconds[row]),
        }
