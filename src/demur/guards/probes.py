"""Linear probes: the direction that tells harmful from harmless states, at one place and layer.

In: states `[prompts, width]`, labels, and the group of each prompt. Out: directions, and the regularisation that
carries over best to groups that were not fitted on. Limits and files are left to the guard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from demur.errors import InputError

Floats = NDArray[np.floating[Any]]
Joint = bool | Literal["layers"]

MOST_STEPS = 100
TOLERANCE = 1e-8
"""Of Newton's method: the most steps, and the share of the loss that a step must at least take off."""


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


def standardised(states: Floats, harmful: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
    """Mean and standard deviation `[width]` of the harmless states of one place and layer, and all states by them."""
    one = states.astype(np.float64)
    harmless = one[~harmful]
    centre, scale = harmless.mean(axis=0), harmless.std(axis=0)
    scale = np.maximum(scale, 1e-3 * scale.mean() + 1e-12)
    return centre, scale, (one - centre) / scale


def logistic(kernel: Floats, harmful: NDArray[np.bool_], weights: Floats, regularisation: float) -> Floats:
    """L2-regularised logistic regression from inner products `[n, n]`: how much each input counts, `[n]`.

    The coefficients are the sum of the inputs, each times its number, and the same as scikit-learn's for an equal C.
    With more numbers in an input than inputs this is the cheaper way. Newton's method with steps that are halved until
    they improve; the intercept is not regularised.
    """
    signs = np.where(harmful, 1.0, -1.0)

    def loss(at: Floats) -> float:
        counts, scores, intercept = at[:-1, 0], at[:-1, 1], at[-1, 0]
        fit = (weights * np.logaddexp(0, -signs * (scores + intercept))).sum()
        return float(regularisation * fit + counts @ scores / 2)

    at = np.zeros((len(signs) + 1, 2))  # counts and scores of the inputs, and below them the intercept
    now = loss(at)
    for _ in range(MOST_STEPS):
        towards = _newton(kernel, harmful, weights, regularisation, at) - at
        step = next((2.0**-halving for halving in range(20) if loss(at + 2.0**-halving * towards) < now), 0.0)
        at = at + step * towards
        before, now = now, loss(at)
        if before - now <= TOLERANCE * abs(before):
            break
    found: Floats = at[:-1, 0]
    return found


def _newton(kernel: Floats, harmful: NDArray[np.bool_], weights: Floats, regularisation: float, at: Floats) -> Floats:
    """Where the quadratic that touches the loss at `at` is least: a weighted ridge regression."""
    from scipy.linalg import cho_factor, cho_solve
    from scipy.special import expit

    scores = at[:-1, 1] + at[-1, 0]
    chance = expit(scores)
    curve = np.maximum(weights * chance * (1 - chance), 1e-10)
    aim = scores + weights * (harmful - chance) / curve
    system = kernel.copy()
    system[np.diag_indices_from(system)] += 1 / (regularisation * curve)
    both = np.stack([aim, np.ones(len(aim))], axis=1)
    solved = cho_solve(cho_factor(system, overwrite_a=True, check_finite=False), both, check_finite=False)
    intercept = solved[:, 0].sum() / solved[:, 1].sum()
    counts = solved[:, 0] - intercept * solved[:, 1]
    return np.append(np.stack([counts, kernel @ counts], axis=1), [[intercept, intercept]], axis=0)


def parts_of(cells: tuple[int, int], joint: Joint) -> list[list[tuple[int, int]]]:
    """Which places and layers share one regression: each has its own, those of a place share one, or all do.

    cells : how many places and layers there are.
    """
    every = list(np.ndindex(*cells))
    if joint == "layers":
        return [[cell for cell in every if cell[0] == place] for place in range(cells[0])]
    return [every] if joint else [[cell] for cell in every]


def learn_probes(
    states: Floats, harmful: NDArray[np.bool_], weights: Floats, choices: Sequence[float], *, joint: Joint = False
) -> list[tuple[Floats, Floats]]:
    """For each regularisation, centres and directions `[places, layers, width]` of states of that shape.

    joint : which places and layers share a regression, see `parts_of`. The mean of the projections that share one has
        the mean 0 and the standard deviation 1 over harmless states.
    """
    centre, directions = np.empty(states.shape[1:]), np.empty((len(choices), *states.shape[1:]))
    for part in parts_of(states.shape[1:3], joint):
        kernel = _kernel(states, harmful, part)
        counts = [logistic(kernel, harmful, weights, choice) for choice in choices]
        projected = np.zeros((len(choices), int((~harmful).sum())))
        for cell in part:
            centre[cell], scale, inputs = standardised(states[(slice(None), *cell)], harmful)
            for choice, count in enumerate(counts):
                towards = inputs.T @ count
                directions[(choice, *cell)] = towards / scale
                projected[choice] += inputs[~harmful] @ towards / len(part)
        for choice, size in enumerate(projected.std(axis=1)):
            for cell in part:
                directions[(choice, *cell)] /= max(float(size), 1e-12)
    return [(centre, direction) for direction in directions]


def _kernel(states: Floats, harmful: NDArray[np.bool_], part: Sequence[tuple[int, int]]) -> Floats:
    """Inner products `[n, n]` of the inputs, the mean over some places and layers, each of which counts alike."""
    mean = np.zeros((len(states), len(states)))
    for cell in part:
        inputs = standardised(states[(slice(None), *cell)], harmful)[2]
        mean += inputs @ inputs.T / len(part)
    return mean


def carried_over(
    states: Floats,
    harmful: NDArray[np.bool_],
    groups: NDArray[Any],
    choices: Sequence[float],
    *,
    joint: Joint = False,
) -> dict[float, float]:
    """For each regularisation, the mean AUROC within groups that were left out one at a time.

    Inputs are standardised by the harmless states of all groups, so that their inner products are needed once. Groups
    with one label tell nothing and are always fitted on; `InputError` where no group has both labels.
    """
    from sklearn.metrics import roc_auc_score

    both = [group for group in np.unique(groups) if len(set(harmful[groups == group])) == 2]
    if len(both) < 2:
        raise InputError(
            f"{len(both)} groups hold harmless and harmful generations; to choose C, give groups of which two or more "
            f"hold both, or a single C"
        )
    errors = np.zeros((len(choices), len(states)))
    for part in parts_of(states.shape[1:3], joint):
        kernel = _kernel(states, harmful, part)
        for group in both:
            kept = groups != group
            inner, weights = kernel[np.ix_(kept, kept)], cell_weights(harmful[kept], groups[kept])
            for choice, regularisation in enumerate(choices):
                counts = logistic(inner, harmful[kept], weights, regularisation)
                size = (inner @ counts)[~harmful[kept]].std()
                errors[choice, ~kept] += kernel[np.ix_(~kept, kept)] @ counts / max(float(size), 1e-12)
    found = {}
    for choice, regularisation in enumerate(choices):
        areas = [roc_auc_score(harmful[groups == group], errors[choice, groups == group]) for group in both]
        found[float(regularisation)] = float(np.mean(areas))
    return found
