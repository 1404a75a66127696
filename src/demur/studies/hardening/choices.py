"""What may be chosen of a hardening: rounds, kinds, prompts that set limits, what is kept, and layers.

In: choices. Out: them, checked, or an `InputError` whose one line names the mend.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from demur.errors import InputError
from demur.guards.calibration import MINIMUM_CALIBRATION
from demur.guards.inputs import require_share
from demur.looks import WINDOW, Looks
from demur.models import Model
from demur.prompts import Prompt
from demur.prompts.options import LABELS
from demur.samplers.step import require_count
from demur.studies.material import HELD_OUT, OWN, OWN_FITTED, ROUNDS, WRAPPED, kinds_left


def check_choices(
    rounds: int,
    leave_out: Sequence[str],
    by_kind: bool = False,
    calibration: Sequence[Prompt] = (),
    also: Sequence[Prompt] = (),
    *,
    quantile: float = 0.985,
    longest: int | None = None,
) -> tuple[str, ...]:
    """The kinds that are left; `InputError` for unknown kinds, too few prompts, and numbers that do not fit."""
    require_share("quantile", quantile, 0.985)
    if longest is not None:
        require_count("longest", longest)
    if not 1 <= rounds <= ROUNDS:
        raise InputError(f"rounds is {rounds}; expected 1 to {ROUNDS}")
    kinds = kinds_left(leave_out)
    if calibration:
        harmful = next((prompt.id for prompt in calibration if prompt.label == "harmful"), None)
        if harmful is not None:
            raise InputError(f"prompt {harmful!r} to calibrate on is labelled harmful; give harmless ones only")
        if len(calibration) < MINIMUM_CALIBRATION:
            raise InputError(
                f"{len(calibration)} prompts to calibrate on are too few; give {MINIMUM_CALIBRATION} or more"
            )
        kinds = (*kinds, OWN)
    if also:
        unlabelled = next((prompt.id for prompt in also if prompt.label not in LABELS), None)
        if unlabelled is not None:
            raise InputError(f"prompt {unlabelled!r} to fit on has no label; give each the label harmless or harmful")
        harmless = sum(prompt.label == "harmless" for prompt in also)
        if 0 < harmless < 2 * MINIMUM_CALIBRATION and (by_kind or not calibration):
            raise InputError(
                f"{harmless} harmless prompts to fit on are too few, because half of them set the limit; give "
                f"{2 * MINIMUM_CALIBRATION} or more{'' if by_kind else ', or prompts to calibrate on as well'}"
            )
        kinds = (*kinds, OWN_FITTED)
    fewest = min(count for kind, count in HELD_OUT.items() if kind in (*kinds, WRAPPED))
    if by_kind and rounds * fewest < MINIMUM_CALIBRATION:
        raise InputError(
            f"--by-kind needs {-(-MINIMUM_CALIBRATION // fewest)} rounds, for {MINIMUM_CALIBRATION} held-out prompts "
            f"of every kind, and rounds is {rounds}; give more, or leave the kinds with few prompts out"
        )
    return kinds


def kept_as(keep: str, window: int | None) -> dict[str, Any]:
    """Arguments of `record`; `InputError` for what guards are not fitted on, and for a window that nothing has."""
    if keep not in ("phi", "looks"):
        raise InputError(f"keep is {keep!r}; give phi or looks")
    if keep == "phi":
        if window is not None:
            raise InputError("a window is for keep='looks' (--keep looks); give that too")
        return {}
    Looks((1,), WINDOW if window is None else window)
    return {"keep": "looks", "window": WINDOW if window is None else window}


def default_layers(model: Model) -> tuple[int, ...]:
    """From a quarter of the depth to the last, an eighth apart."""
    count = model.layer_count
    return tuple(dict.fromkeys(max(1, round(count * eighth / 8)) for eighth in range(2, 9)))
