"""An isolation forest as plain arrays: trained by scikit-learn, kept and evaluated without its objects.

In: `[prompts, columns]`. Out: the trees as arrays `[trees, nodes]`, and anomaly scores in (0, 1) that equal
scikit-learn's. Source: Liu, Ting and Zhou (2008), Isolation Forest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TREES = 200
_SAMPLES = 256


def learn_forest(values: NDArray[np.floating[Any]], seed: int) -> dict[str, NDArray[Any]]:
    """Trees over harmless generations `[prompts, columns]`.

    left, right : the next node, a leaf's own number at a leaf. column, cut : go left up to `cut`. path : at a leaf,
    the expected number of cuts that isolate what ends there. typical : the same for a whole sample.
    """
    from sklearn.ensemble import IsolationForest

    samples = min(_SAMPLES, len(values))
    forest = IsolationForest(n_estimators=_TREES, max_samples=samples, random_state=seed).fit(values)
    trees = [one.tree_ for one in forest.estimators_]
    shape = (len(trees), max(tree.node_count for tree in trees))
    left, right, column = (np.zeros(shape, dtype=np.int32) for _ in range(3))
    cut, path = np.zeros(shape), np.zeros(shape)
    for place, tree in enumerate(trees):
        nodes = np.arange(tree.node_count)
        leaf = tree.children_left < 0
        left[place, nodes] = np.where(leaf, nodes, tree.children_left)
        right[place, nodes] = np.where(leaf, nodes, tree.children_right)
        column[place, nodes] = np.where(leaf, 0, tree.feature)
        cut[place, nodes] = tree.threshold
        path[place, nodes] = tree.compute_node_depths() - 1 + _expected_path(tree.n_node_samples)
    typical = _expected_path(np.array([samples]))
    return {"left": left, "right": right, "column": column, "cut": cut, "path": path, "typical": typical}


def forest_errors(learned: Mapping[str, NDArray[Any]], values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """``2 ** -(mean path / typical path)``, near 1 where a few cuts isolate a generation, `[prompts]`."""
    values = values.astype(np.float32)  # as scikit-learn compares them
    rows, trees = np.arange(len(values))[:, None], np.arange(len(learned["left"]))[None]
    node = np.zeros((len(values), trees.size), dtype=np.int32)
    for _ in range(learned["left"].shape[1]):  # a path visits no node twice
        goes_left = values[rows, learned["column"][trees, node]] <= learned["cut"][trees, node]
        following = np.where(goes_left, learned["left"][trees, node], learned["right"][trees, node])
        if (following == node).all():
            break
        node = following
    mean = learned["path"][trees, node].mean(axis=1)
    typical = float(learned["typical"][0])
    scores: NDArray[np.float64] = 2 ** -(mean / typical) if typical else np.ones(len(values))
    return scores


def require_trees(
    left: NDArray[Any], right: NDArray[Any], column: NDArray[Any], shape: tuple[int, ...], columns: int
) -> None:
    """Raise `ValueError` unless every path through the trees ends at a leaf; all arrays `[trees, nodes]`.

    A node's children have higher numbers than itself, a leaf is its own child, and what pads a shorter tree, all 0,
    is nobody's child: so no path has a cycle, and none leaves its tree.
    """
    for name, array in (("left", left), ("right", right), ("column", column)):
        if array.shape != shape or array.dtype != np.int32:
            raise ValueError(f"{name} is {array.dtype} {list(array.shape)}, expected int32 {list(shape)}")
    nodes = np.arange(shape[1])
    leaf = (left == nodes) & (right == nodes)
    inner = (left > nodes) & (right > nodes) & (left < shape[1]) & (right < shape[1])
    valid = leaf | inner
    trees = np.nonzero(inner)
    reached = [valid[:, 0], valid[trees[0], left[trees]], valid[trees[0], right[trees]]]
    if not all(part.all() for part in reached) or (column < 0).any() or (column >= columns).any():
        raise ValueError("the trees have a cycle or lead out of their arrays")


def _expected_path(count: NDArray[Any]) -> NDArray[np.float64]:
    """Mean depth of an unsuccessful search in a binary search tree of `count` rows."""
    n = np.maximum(count, 3).astype(np.float64)
    many = 2 * (np.log(n - 1) + np.euler_gamma) - 2 * (n - 1) / n
    return np.where(count > 2, many, np.where(count == 2, 1.0, 0.0))
