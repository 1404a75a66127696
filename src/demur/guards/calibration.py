"""What a threshold set on a few held-out signals is worth.

In: how many signals there were and the quantile. Out: an error or a warning where they are too few, and an
interval for the true false-positive rate. Setting the threshold is left to the guards.
"""

from __future__ import annotations

import math
import warnings

from demur.errors import InputError

MINIMUM_CALIBRATION = 20
"""Fewest held-out signals to calibrate on."""


def require_enough(count: int, quantile: float) -> None:
    """Raise `InputError` for fewer than 20 held-out signals, warn where they are too few for the quantile."""
    finest = f"1/(n + 1) = {1 / (count + 1):.2%}"
    if count < MINIMUM_CALIBRATION:
        raise InputError(
            f"{count} signals to calibrate on; expected at least {MINIMUM_CALIBRATION}, and for the quantile "
            f"{quantile} better {1 / (1 - quantile):.0f}. {count} support a false-positive rate of {finest} at best."
        )
    if count < 1 / (1 - quantile):
        warnings.warn(
            f"{count} signals to calibrate on are too few for the quantile {quantile}: the finest "
            f"false-positive rate they support is {finest}. Use more, or a lower quantile.",
            UserWarning,
            stacklevel=3,
        )


def false_positive_interval(count: int, quantile: float, confidence: float = 0.95) -> tuple[float, float]:
    """Interval for the true false-positive rate of a threshold at ``np.quantile(errors, quantile)``.

    count : held-out errors. The share of the population above the k-th smallest of n is Beta(n - k + 1, k);
    NumPy's quantile lies between two such order statistics, so each end comes from one of them.
    """
    from scipy.special import betaincinv

    place = (count - 1) * quantile
    below, above = math.floor(place) + 1, math.ceil(place) + 1
    tail = (1 - confidence) / 2
    low = betaincinv(count - above + 1, above, tail)
    high = betaincinv(count - below + 1, below, 1 - tail)
    return float(low), float(high)
