"""What a threshold set on a few held-out signals is worth.

In: how many signals there were and the quantile, or their scores and the rate to promise. Out: an error or a
warning where they are too few, an interval for the true false-positive rate, a threshold that keeps a promise.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.errors import InputError

MINIMUM_CALIBRATION = 20
"""Fewest held-out signals to calibrate on."""


@contextmanager
def warned_already() -> Iterator[None]:
    """Leave out the warning that signals are too few, where another guard with the same calibration has given it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*too few for the quantile", category=UserWarning)
        yield


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
            stacklevel=4,
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


def conformal_threshold(scores: NDArray[np.floating[Any]], alpha: float) -> tuple[float, float, float]:
    """The threshold that one more score of the same kind exceeds with a probability of at most `alpha`.

    scores : `[n]`, of held-out generations. The new one and these are exchangeable, so it is as likely to take any
    of n + 1 places among them; the threshold is the ``ceil((n + 1)(1 - alpha))``-th smallest, call it the k-th,
    and above it lie n + 1 - k of the places. Also returns the ends of a 95% interval for the rate that this one
    calibration achieves: given the threshold it is Beta(n + 1 - k, k) where scores have no ties, with mean
    (n + 1 - k) / (n + 1), and stochastically smaller where they have.
    Raises `InputError` below 1 / alpha - 1 scores, from which no finite threshold keeps the promise.
    Source: Vovk (2012), Conditional validity of inductive conformal predictors.
    """
    from scipy.special import betaincinv

    count = len(scores)
    above = math.floor((count + 1) * alpha + 1e-9)  # 100 * 0.29 is less than 29 in floating point
    if above < 1:
        raise InputError(
            f"{count} signals to calibrate on; alpha={alpha} needs at least {math.ceil(1 / alpha - 1e-9) - 1}. "
            f"Give as many, or an alpha of at least 1/(n + 1) = {1 / (count + 1):.2%}."
        )
    place = count + 1 - above
    low, high = (float(betaincinv(above, place, tail)) for tail in (0.025, 0.975))
    return float(np.partition(scores, place - 1)[place - 1]), low, high


def limits_by_kind(errors: NDArray[np.floating[Any]], kinds: NDArray[Any], alpha: float) -> dict[str, dict[str, float]]:
    """For every kind its `count`, `limit`, and the `alpha` that the limit keeps for further errors of this kind.

    A kind of n < 1 / alpha - 1 errors supports an alpha of 1 / (n + 1) only. Raises `InputError` naming a kind of fewer
    than 20. Source: Mondrian conformal prediction, Vovk (2012), Conditional validity of inductive conformal predictors.
    """
    found = {}
    for kind in dict.fromkeys(kinds.tolist()):
        members = errors[kinds == kind]
        if len(members) < MINIMUM_CALIBRATION:
            raise InputError(
                f"kind {kind}: {len(members)} generations to calibrate on; expected at least {MINIMUM_CALIBRATION} of "
                f"every kind. Give more, or leave the kind out."
            )
        kept = max(alpha, 1 / (len(members) + 1))
        limit, _, _ = conformal_threshold(members, kept)
        found[str(kind)] = {"count": len(members), "limit": limit, "alpha": kept}
    return found
