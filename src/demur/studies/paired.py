"""Two measurements of the same prompts: how far apart they are, and how sure that is.

In: differences of pairs, or counts of pairs that changed. Out: a mean with its bootstrap interval, and an exact
p-value. Both take pairs as independent cases; where many prompts come from one template, they are not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom

from demur.dynamics import Rate

RESAMPLES = 2000


def bootstrap_mean(values: ArrayLike, random: np.random.Generator, resamples: int = RESAMPLES) -> Rate:
    """The mean of `values` ``[n]`` with the 95% percentile interval of its bootstrap; all NaN where n is 0.

    Where all values are equal the interval is that value alone, however small n is.
    """
    found, counts = np.unique(np.asarray(values, dtype=np.float64), return_counts=True)
    n = int(counts.sum())
    if n == 0:
        return Rate(np.nan, np.nan, np.nan, 0)
    # Drawing n values with replacement is drawing how often each distinct one occurs: [resamples, distinct].
    means = random.multinomial(n, counts / n, size=resamples) @ found / n
    low, high = np.quantile(means, [0.025, 0.975])
    return Rate(float(found @ counts / n), float(low), float(high), n)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided exact p-value that as many pairs turn one way as the other; 1 where none turns.

    Source: McNemar (1947), Psychometrika 12, with the binomial distribution in place of chi-squared.
    """
    return min(1.0, 2 * float(binom.cdf(min(gained, lost), gained + lost, 0.5)))
