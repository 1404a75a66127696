"""Two measurements of the same prompts: how far apart they are, and how sure that is.

In: differences of pairs, or counts of pairs that changed. Out: a difference with its 95% interval, and an exact
p-value. All take pairs as independent cases; where many prompts come from one template, they are not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from demur.dynamics import Rate
from demur.errors import InputError

RESAMPLES = 2000
ALPHA = 0.05
"""One less the confidence of every interval here, and the level at which the exact test must agree."""
FEW = 20
"""Fewer values than these tell too little of their own spread for a bootstrap."""


def paired_difference(gained: int, lost: int, count: int) -> Rate:
    """The difference of two proportions over the same `count` pairs, with its 95% interval.

    gained, lost : pairs in which only the first, or only the second, has the property; value is
        ``(gained - lost) / count``, in [-1, 1]. All NaN where there is no pair.
    The interval is Tango's score interval. Where `mcnemar` does not tell the difference from zero, the interval is
    extended to hold zero, so that both always say the same.
    Source: Tango (1998), Statistics in Medicine 17.
    """
    if gained < 0 or lost < 0 or gained + lost > count:
        raise InputError(f"{gained} pairs gained and {lost} lost of {count}; expected counts within the pairs.")
    if count == 0:
        return Rate(np.nan, np.nan, np.nan, 0)
    high, low = _upper_limit(gained, lost, count), -_upper_limit(lost, gained, count)
    if mcnemar(gained, lost) >= ALPHA:
        low, high = min(low, 0.0), max(high, 0.0)
    return Rate((gained - lost) / count, low, high, count)


def _upper_limit(gained: int, lost: int, count: int) -> float:
    """The difference at which the score test just rejects from above; 1 where all pairs are gained."""
    from scipy.optimize import brentq
    from scipy.stats import norm

    if gained == count:
        return 1.0
    z = float(norm.ppf(1 - ALPHA / 2))

    def excess(delta: float) -> float:
        # `chance`: the likeliest share of pairs lost, where the true difference is `delta`.
        b = (2 * count - gained + lost) * delta - gained - lost
        chance = (np.sqrt(max(b**2 + 8 * count * lost * delta * (1 - delta), 0.0)) - b) / (4 * count)
        variance = count * (2 * chance + delta * (1 - delta))
        return float(gained - lost - count * delta + z * np.sqrt(max(variance, 0.0)))

    # Where no pair, or every pair, is lost the variance is 0 at the estimate itself, which is then a root of no use.
    return float(brentq(excess, (gained - lost) / count + 1e-9, 1.0, xtol=1e-12))


def bootstrap_mean(values: ArrayLike, random: np.random.Generator, resamples: int = RESAMPLES) -> Rate:
    """The mean of `values` ``[n]`` with its 95% interval; all NaN where n is 0.

    From `FEW` values on it is the percentile interval of the bootstrap. Below, the resampled means are too close
    together, and it is Student's; the interval is NaN for a single value, and for few values that are all equal, as
    neither tells how far others may lie.
    """
    found, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    n = int(counts.sum())
    if n == 0:
        return Rate(np.nan, np.nan, np.nan, 0)
    mean = float(found @ counts / n)
    if n < FEW:
        return Rate(mean, *_students(found, counts, mean), n)
    # Drawing n values with replacement is drawing how often each distinct one occurs: [resamples, distinct].
    means = random.multinomial(n, counts / n, size=resamples) @ found / n
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    return Rate(mean, float(low), float(high), n)


def _students(found: np.ndarray, counts: np.ndarray, mean: float) -> tuple[float, float]:
    from scipy.stats import t

    if len(found) == 1:
        return np.nan, np.nan
    n = counts.sum()
    error = np.sqrt(counts @ (found - mean) ** 2 / (n - 1) / n)
    half = float(t.ppf(1 - ALPHA / 2, n - 1) * error)
    return mean - half, mean + half


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value that as many pairs turn one way as the other; 1 where none turns.

    Source: McNemar (1947), Psychometrika 12, with the binomial distribution in place of chi-squared.
    """
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
