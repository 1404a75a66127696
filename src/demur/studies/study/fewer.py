"""Which prompts guards are fitted to where a set has very many, so that neither time nor memory grows with it.

In: a number of prompts. Out: the places of at most `FIT_MOST` of them, drawn with a fixed seed. Scores and rates are
of all prompts, and signals are calibrated on all; only fitting, and the states that it needs, are of these.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

FIT_MOST = 5_000
"""Four times as many as the paper's 1,200; detectors that compare prompts with each other take a minute."""
SEED = 0

Values = TypeVar("Values", bound=np.ndarray)


def fewer(count: int, most: int | None = None) -> np.ndarray:
    """Ascending places of at most `most` of `count` prompts, int64 ``[n]``, by default of `FIT_MOST`."""
    most = FIT_MOST if most is None else most
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(SEED).choice(count, most, replace=False))


def few(values: Values) -> Values:
    """The values ``[prompts, ...]`` of the prompts that `fewer` names; all as they are where they are no more."""
    return values if len(values) <= FIT_MOST else values[fewer(len(values))]
