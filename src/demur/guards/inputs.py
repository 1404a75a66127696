"""What guards are given, told apart: signals, recordings, paths, and held-out signals in the wrong place.

In: arguments as they were given. Out: nothing, or an `InputError` that names the mend.
"""

from __future__ import annotations

from numbers import Real
from os import PathLike
from typing import Any

import numpy as np

from demur.errors import InputError
from demur.signal import Signal


def require_arrays(X: Any) -> None:
    """Refuse a recording and a path where signals are expected."""
    if isinstance(X, str | PathLike):
        raise InputError(
            f"{X!s:.200} is a path; read it first, with demur.Recording(...) and anchors.signal(recording)"
        )
    if hasattr(X, "phi_batches"):
        raise InputError(
            "a recording holds states and no signal; give anchors.signal(recording), for a TrajectoryGuard "
            "anchors.features(recording), for a DirectionGuard guard.states(recording)"
        )


def require_no_second_signals(y: Any) -> None:
    """Refuse signals in the place of `y`, which is ignored: they were meant for calibration."""
    if y is None:
        return
    try:
        many = isinstance(y, Signal) or hasattr(y, "phi_batches") or np.asarray(y).ndim > 1
    except ValueError:  # a list of lists of unlike lengths
        many = True
    if many:
        raise InputError("the second argument, y, is ignored and holds signals; give held-out ones as calibration=...")


def require_share(name: str, value: Any, example: float) -> None:
    """Refuse what is no number between 0 and 1."""
    if not isinstance(value, Real) or not 0 < float(value) < 1:
        raise InputError(f"{name} is {value}; expected a number between 0 and 1, such as {example}.")
