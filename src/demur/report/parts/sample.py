"""Which generations a page shows where it cannot hold them all.

In: the group of every generation. Out: an order of all of them, any beginning of which is a fair sample. How many fit
is the page's matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

SEED = 0


def sample_order(groups: Sequence[Any] | pd.Series[Any]) -> np.ndarray:
    """Places of all rows, int64 ``[rows]``: any beginning holds equally many of each group, or all of a small one.

    Within a group the order is drawn with a fixed seed, so that the same run gives the same sample.
    """
    of, _ = pd.factorize(pd.Series(list(groups), dtype=object))
    drawn = np.random.default_rng(SEED).permutation(len(of))
    turns = pd.Series(of[drawn]).groupby(of[drawn]).cumcount().to_numpy()
    return np.asarray(drawn[np.lexsort((of[drawn], turns))], dtype=np.int64)


def sampled(groups: Sequence[Any] | pd.Series[Any], most: int) -> np.ndarray:
    """Places of at most `most` rows in ascending order, drawn as `sample_order` says; all where they are no more."""
    return np.arange(len(groups)) if len(groups) <= most else np.sort(sample_order(groups)[:most])
