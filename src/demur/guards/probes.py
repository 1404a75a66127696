"""Linear probes: the direction that tells harmful from harmless states, at one place and layer.

In: states `[prompts, width]`, labels, and the group of each prompt. Out: directions, and the regularisation that
carries over best to groups that were not fitted on. Limits and files are left to the guard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.errors import InputError

Floats = NDArray[np.floating[Any]]


def cell_weights(harmful: NDArray[np.bool_], groups: NDArray[Any]) -> Floats:
    """A weight a prompt, mean 1: both labels count alike, in every group and in all.

    So within a group, such as the prompts in one wrapper, the group itself says nothing about the label. A group with
    one label counts by its size.
    """
    weights = np.ones(len(harmful))
    for group in np.unique(groups):
        for label in (False, True):
            cell = (groups == group) & (harmful == label)
            other = (groups == group) & (harmful != label)
            if cell.any() and other.any():
                weights[cell] = (cell.sum() + other.sum()) / (2 * cell.sum())
    for label in (False, True):
        weights[harmful == label] /= weights[harmful == label].sum()
    found: Floats = weights / weights.mean()
    return found


def learn_probe(
    states: Floats, harmful: NDArray[np.bool_], weights: Floats, regularisation: float
) -> tuple[Floats, Floats]:
    """Centre and direction `[width]` of one place and layer: projections of harmless states have mean 0 and variance 1.

    L2-regularised logistic regression on states that are standardised by the harmless ones.
    """
    from sklearn.linear_model import LogisticRegression

    harmless = states[~harmful]
    centre, scale = harmless.mean(axis=0), harmless.std(axis=0)
    scale = np.maximum(scale, 1e-3 * scale.mean() + 1e-12)
    fitted = LogisticRegression(C=regularisation, max_iter=1000)
    fitted.fit((states - centre) / scale, harmful, sample_weight=weights)
    direction = fitted.coef_[0] / scale
    return centre, direction / max(float(((harmless - centre) @ direction).std()), 1e-12)


def learn_probes(
    states: Floats, harmful: NDArray[np.bool_], weights: Floats, regularisation: float
) -> tuple[Floats, Floats]:
    """Centres and directions `[places, layers, width]` of states `[prompts, places, layers, width]`."""
    centre = np.empty(states.shape[1:])
    direction = np.empty(states.shape[1:])
    for place, layer in np.ndindex(states.shape[1:3]):
        one = states[:, place, layer].astype(np.float64)
        centre[place, layer], direction[place, layer] = learn_probe(one, harmful, weights, regularisation)
    return centre, direction


def carried_over(
    states: Floats, harmful: NDArray[np.bool_], groups: NDArray[Any], choices: Sequence[float]
) -> dict[float, float]:
    """For each regularisation, the mean AUROC within groups that were left out one at a time.

    Groups with one label tell nothing and are always fitted on; `InputError` where no group has both labels.
    """
    from sklearn.metrics import roc_auc_score

    both = [group for group in np.unique(groups) if len(set(harmful[groups == group])) == 2]
    if len(both) < 2:
        raise InputError(
            f"{len(both)} groups hold harmless and harmful generations; to choose C, give groups of which two or more "
            f"hold both, or a single C"
        )
    found = {}
    for choice in choices:
        areas = []
        for group in both:
            kept = groups != group
            centre, direction = learn_probes(
                states[kept], harmful[kept], cell_weights(harmful[kept], groups[kept]), choice
            )
            errors = np.einsum("nplw,plw->n", states[~kept] - centre, direction)
            areas.append(roc_auc_score(harmful[~kept], errors))
        found[float(choice)] = float(np.mean(areas))
    return found
