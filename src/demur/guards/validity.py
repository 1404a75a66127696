"""Whether what a guard's file holds can be a guard: shapes against each other, ranges, and nothing that is not finite.

In: arrays and plain values as they were read. Out: the same, or `ValueError` that says what is wrong. A guard that
cannot judge would let everything pass, so it must not be loaded. What is whole but forged is not told apart here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.guards.outlier.isolation import require_trees

Arrays = Mapping[str, NDArray[Any]]


def require_array(
    arrays: Arrays, name: str, *shape: int | None, above: float | None = None, infinite: bool = False
) -> NDArray[Any]:
    """The floating-point array `name`, once it is known to be as a guard needs it.

    shape : its axes; None where any length of at least 1 will do. above : what all numbers must exceed.
    infinite : whether +inf may stand in it.
    """
    array = arrays[name]
    fits = len(array.shape) == len(shape) and all(
        found == expected if expected is not None else found > 0
        for found, expected in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype not in (np.float32, np.float64):
        expected = ", ".join("any" if length is None else str(length) for length in shape)
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, expected floats [{expected}]")
    if np.isnan(array).any() or (np.isneginf(array) if infinite else np.isinf(array)).any():
        raise ValueError(f"{name} holds numbers that are not finite")
    if above is not None and not (array > above).all():
        raise ValueError(f"{name} holds numbers that are not above {above:g}")
    return array


def require_sorted(errors: NDArray[Any] | None, count: int) -> NDArray[Any] | None:
    """The errors of a calibration on `count` generations, ascending, where a file holds them."""
    if errors is None:
        return None
    if (
        errors.shape != (count,)
        or errors.dtype not in (np.float32, np.float64)
        or not (errors[1:] >= errors[:-1]).all()
    ):
        raise ValueError(f"its calibration errors are {errors.dtype} {list(errors.shape)}, or not {count} in order")
    return errors


def require_threshold(fitted: Mapping[str, Any]) -> None:
    """Refuse a threshold that no error exceeds, or that its own offset and calibration contradict."""
    threshold, offset = fitted["threshold_"], fitted["offset_"]
    low, high, count = (fitted[name] for name in ("false_positive_low_", "false_positive_high_", "n_calibration_"))
    if not all(_is_number(value) for value in (threshold, offset)) or offset != -threshold:
        raise ValueError(f"threshold {threshold!r} and offset {offset!r} are not a finite number and its negative")
    if not _is_number(low) or not _is_number(high) or not 0 <= low <= high <= 1:
        raise ValueError(f"false-positive rates from {low!r} to {high!r} are not an interval of shares")
    if type(fitted["calibrated_"]) is not bool or type(count) is not int or count < 0:
        raise ValueError(f"calibrated is {fitted['calibrated_']!r} on {count!r} signals")
    if fitted["calibrated_"] != (count > 0):
        raise ValueError(f"calibrated is {fitted['calibrated_']} on {count} signals")


def require_learned(detector: str, arrays: Arrays) -> int:
    """The number of columns of a detector's arrays, once they are known to fit each other."""
    learned = {key.removeprefix("detector."): array for key, array in arrays.items() if key.startswith("detector.")}
    columns = len(require_array(arrays, "centre", None))
    require_array(arrays, "scale", columns, above=0)
    expected = _LEARNED[detector](learned, columns)
    if set(learned) != set(expected) or set(arrays) - {f"detector.{name}" for name in learned} != {"centre", "scale"}:
        raise ValueError(f"the arrays {sorted(arrays)} are not those of a {detector} detector")
    return columns


def _covariance(learned: Arrays, columns: int) -> tuple[str, ...]:
    require_array(learned, "location", columns)
    precision = require_array(learned, "precision", columns, columns)
    if not np.allclose(precision, precision.T, rtol=1e-6, atol=1e-6 * np.abs(precision).max()):
        raise ValueError("the precision is not symmetric")
    # Else some strange generation would have an error below 0, and pass.
    np.linalg.cholesky((precision + precision.T) / 2)
    return "location", "precision"


def _components(learned: Arrays, columns: int) -> tuple[str, ...]:
    require_array(learned, "location", columns)
    components = require_array(learned, "components", len(learned["components"]), columns)
    if len(components) > columns or not np.allclose(components @ components.T, np.eye(len(components)), atol=1e-6):
        raise ValueError("the components are not orthonormal")
    return "location", "components"


def _points(learned: Arrays, columns: int) -> tuple[str, ...]:
    require_array(learned, "points", None, columns)
    return ("points",)


def _support(learned: Arrays, columns: int) -> tuple[str, ...]:
    points = require_array(learned, "points", None, columns)
    require_array(learned, "weights", len(points), above=0)
    require_array(learned, "gamma", 1, above=0)
    return "points", "weights", "gamma"


def _forest(learned: Arrays, columns: int) -> tuple[str, ...]:
    cut = require_array(learned, "cut", None, None)
    path = require_array(learned, "path", *cut.shape)
    typical = require_array(learned, "typical", 1)
    if (path < 0).any() or (typical < 0).any():
        raise ValueError("paths are below 0")
    require_trees(learned["left"], learned["right"], learned["column"], cut.shape, columns)
    return "left", "right", "column", "cut", "path", "typical"


_LEARNED: dict[str, Callable[[Arrays, int], tuple[str, ...]]] = {
    "mahalanobis": _covariance,
    "pca": _components,
    "neighbours": _points,
    "one-class-svm": _support,
    "isolation-forest": _forest,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
