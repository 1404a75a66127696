"""What guards are given, told apart: signals, recordings, paths, and held-out signals in the wrong place.

In: arguments as they were given. Out: nothing, or an `InputError` that names the mend.
"""

from __future__ import annotations

from numbers import Real
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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


def labels_of(y: Any, count: int, instead: str = "") -> NDArray[np.bool_]:
    """Which generations are harmful: those above the lowest level. instead : what else may be given, for the error."""
    if y is None:
        raise InputError(
            f"requires y to be passed, but the target y is None: give 0 for harmless, 1 for harmful{instead}."
        )
    labels = one_each("y", y, count)
    numbers = labels.dtype.kind in "biuf" or _all_numbers(labels)
    if not numbers or not np.isfinite(levels := np.unique(labels.astype(np.float64))).all() or levels[0] < 0:
        raise InputError("y holds what is no label; expected 0 for harmless and 1 for harmful, or levels above it.")
    if len(levels) < 2:
        raise InputError(f"y holds one class, {levels[0]:g}; expected 0 for harmless and 1 for harmful, and both.")
    return np.asarray(labels.astype(np.float64) > levels[0])


def _all_numbers(labels: NDArray[Any]) -> bool:
    return all(isinstance(label, int | float) for label in labels.tolist())


def one_each(name: str, values: ArrayLike, count: int) -> NDArray[Any]:
    """The values as an array, once there is one for each of `count` generations."""
    array = np.asarray(values)
    if array.shape != (count,):
        raise InputError(f"{name} has shape {list(array.shape)}; expected [{count}], one for each generation.")
    return array
