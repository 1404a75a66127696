"""The probe guard: what its probes are, what wrappers do to them, limits by kind, files, and where it is watched."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from demur.errors import InputError, ProvenanceError
from demur.guards import DirectionGuard, ProbeGuard, StreamingGuard, load_guard
from demur.guards.probes import cell_weights, logistic
from demur.provenance import Provenance
from demur.signal import Signal

MADE = Provenance("toy", "f" * 64, {"name": "Autoregressive", "steps": 8, "seed": 0}, (6, 12))
STATES = replace(MADE, anchors="states at (0.5, 1.0)")
TOWARDS, WRAPPER = np.random.default_rng(5).normal(size=(2, 12))


def states(count: int, seed: int, harm: float = 0.0, wrapped: float = 0.0) -> np.ndarray:
    """Of two places and layers; harm and wrappers move them along directions that are not at right angles."""
    scatter = np.random.default_rng(seed).normal(size=(count, 2, 2, 12))
    return (1 + scatter + harm * TOWARDS + wrapped * (WRAPPER + 0.7 * TOWARDS)).astype(np.float32)


def training() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plain ones, and wrapped ones of both labels of which many more are harmful; with y and groups."""
    parts = [(300, 0.0, 0.0), (200, 1.0, 0.0), (40, 0.0, 2.0), (160, 1.0, 2.0)]
    X = np.concatenate([states(n, seed, harm, wrapped) for seed, (n, harm, wrapped) in enumerate(parts)])
    y = np.repeat([0, 1, 0, 1], [n for n, _, _ in parts])
    return X, y, np.repeat(["plain", "plain", "rules", "rules"], [n for n, _, _ in parts])


@pytest.fixture(scope="module")
def guard() -> ProbeGuard:
    X, y, groups = training()
    return ProbeGuard(0.95).fit(X, y, groups=groups, calibration=states(400, 9))


def test_the_error_is_the_mean_of_logistic_regressions_in_harmless_standard_deviations() -> None:
    X, y, _ = training()
    fresh, expected = states(20, 10, 0.5), np.zeros(20)
    for place, layer in np.ndindex(2, 2):
        one = X[:, place, layer].astype(np.float64)
        centre, scale = one[y == 0].mean(axis=0), one[y == 0].std(axis=0)
        one, new = (one - centre) / scale, (fresh[:, place, layer] - centre) / scale
        weights = len(y) / (2 * np.where(y == 1, (y == 1).sum(), (y == 0).sum()))
        probe = LogisticRegression(C=0.1, max_iter=1000).fit(one, y, sample_weight=weights)
        expected += (new @ probe.coef_[0]) / (one[y == 0] @ probe.coef_[0]).std() / 4
    np.testing.assert_allclose(ProbeGuard().fit(X, y).errors(fresh), expected, rtol=1e-3, atol=1e-3)


def test_one_regression_on_all_places_and_layers_together() -> None:
    X, y, _ = training()
    fresh = states(20, 10, 0.5)
    centre, scale = X[y == 0].mean(axis=0), X[y == 0].std(axis=0)
    inputs, new = (((one - centre) / scale).reshape(len(one), -1) / 2 for one in (X, fresh))
    weights = len(y) / (2 * np.where(y == 1, (y == 1).sum(), (y == 0).sum()))
    probe = LogisticRegression(C=0.1, max_iter=1000, tol=1e-8).fit(inputs, y, sample_weight=weights)
    expected = (new @ probe.coef_[0]) / (inputs[y == 0] @ probe.coef_[0]).std()
    made = ProbeGuard(joint=True).fit(X, y)
    np.testing.assert_allclose(made.errors(fresh), expected, rtol=1e-3, atol=1e-3)
    assert float(made.errors(X[y == 0]).std()) == pytest.approx(1, rel=1e-3)


def test_one_regression_on_the_layers_of_each_place_tells_all_that_the_place_can() -> None:
    X, y, _ = training()
    fresh = states(200, 10, 0.5)
    guards = {joint: ProbeGuard(joint=joint).fit(X, y) for joint in (False, True, "layers")}
    for place in (0, 1):
        alone = ProbeGuard(places=(1.0,), joint=True).fit(X[:, [place]], y)
        np.testing.assert_allclose(
            guards["layers"].place_errors(fresh)[:, place], alone.errors(fresh[:, [place]]), rtol=1e-4, atol=1e-4
        )
    assert guards["layers"].errors(fresh) == pytest.approx(
        np.asarray(guards["layers"].place_errors(fresh)).mean(axis=1), rel=1e-4
    )
    late = X.copy()  # the first place says less than the second, and alone nearly as much as with it
    late[:, 1] += 5 * (y == 1)[:, None, None] * TOWARDS
    both, own = (ProbeGuard(joint=joint).fit(late, y).place_errors(late)[:, 0] for joint in (True, "layers"))
    assert roc_auc_score(y, own) > roc_auc_score(y, both)
    with pytest.raises(InputError, match="joint is 'places'; expected True, False or 'layers'"):
        ProbeGuard(joint="places").fit(X, y)  # type: ignore[arg-type]


@pytest.mark.parametrize("regularisation", [1e-4, 0.1, 100.0])
@pytest.mark.parametrize("apart", [0.2, 8.0])
def test_regression_from_inner_products_is_that_on_the_inputs(regularisation: float, apart: float) -> None:
    rng = np.random.default_rng(3)
    y = np.arange(60) % 3 == 0
    inputs = rng.normal(size=(60, 100)) + apart * y[:, None] / 10
    weights = rng.uniform(0.2, 3, 60)
    exact = LogisticRegression(C=regularisation, tol=1e-10, max_iter=10000).fit(inputs, y, sample_weight=weights)
    found = inputs.T @ logistic(inputs @ inputs.T, y, weights, regularisation)
    np.testing.assert_allclose(found, exact.coef_[0], rtol=1e-3, atol=1e-4 * np.abs(exact.coef_).max())


def test_a_wrapper_that_both_labels_were_seen_in_is_no_evidence(guard: ProbeGuard) -> None:
    flagged = (guard.predict(states(1000, 11, wrapped=2.0)) == -1).mean()
    direction = DirectionGuard(0.95).fit(states(300, 0), harmful=states(200, 1, 1.0), calibration=states(400, 9))
    assert flagged < 0.3 < 0.7 < (direction.predict(states(1000, 11, wrapped=2.0)) == -1).mean()
    assert (guard.predict(states(1000, 12, harm=1.0, wrapped=2.0)) == -1).mean() > 0.9


def test_both_labels_count_alike_in_every_group_and_in_all() -> None:
    _, y, groups = training()
    weights = cell_weights(y == 1, groups)
    sums = {(g, v): weights[(groups == g) & (y == v)].sum() for g in ("plain", "rules") for v in (0, 1)}
    assert sums["plain", 0] == pytest.approx(sums["plain", 1]) and sums["rules", 0] == pytest.approx(sums["rules", 1])
    alone = cell_weights(np.array([False, True, True]), np.array(["a", "a", "b"]))
    assert alone[0] == pytest.approx(alone[1:].sum()) and alone.mean() == pytest.approx(1)


def test_c_is_chosen_by_groups_that_were_left_out() -> None:
    X, y, groups = training()
    made = ProbeGuard(C=[1e-4, 1.0]).fit(X, y, groups=groups)
    assert set(made.carried_over_) == {1e-4, 1.0}
    assert max(made.carried_over_, key=lambda choice: made.carried_over_[choice]) == made.C_
    with pytest.raises(InputError, match="two or more"):
        ProbeGuard(C=[0.1, 1.0]).fit(X, y)


def test_a_limit_by_kinds_keeps_the_promise_for_each_kind(guard: ProbeGuard) -> None:
    X, y, groups = training()
    made = ProbeGuard(0.95).fit(X, y, groups=groups)
    held_out = np.concatenate([states(300, 20), states(60, 21, harm=0.3)])
    made.calibrate(held_out, kinds=["plain"] * 300 + ["odd"] * 60)
    assert made.threshold_ == made.kinds_["odd"]["limit"] > made.kinds_["plain"]["limit"]
    assert [(made.predict(states(4000, 22, harm=h)) == -1).mean() <= 0.06 for h in (0.0, 0.3)] == [True, True]
    with pytest.raises(InputError, match="kind odd: 19 generations"):
        made.calibrate(held_out[:319], kinds=["plain"] * 300 + ["odd"] * 19)


def test_few_of_a_kind_support_a_coarser_promise(guard: ProbeGuard) -> None:
    X, y, groups = training()
    made = ProbeGuard(0.99).fit(X, y, groups=groups)
    made.calibrate(states(150, 20), kinds=["plain"] * 120 + ["few"] * 30)
    assert made.kinds_["plain"]["alpha"] == pytest.approx(0.01) and made.kinds_["few"]["alpha"] == 1 / 31


def test_a_saved_guard_gives_the_same_errors_and_refuses_other_states(tmp_path: Path) -> None:
    X, y, groups = training()
    made = ProbeGuard(0.9, C=[0.1, 1.0], joint="layers").fit(Signal(X, STATES), y, groups=groups)
    made.calibrate(states(100, 3), kinds=["a"] * 50 + ["b"] * 50)
    made.save(tmp_path / "guard.safetensors")
    loaded = load_guard(tmp_path / "guard.safetensors")
    assert isinstance(loaded, ProbeGuard)
    np.testing.assert_array_equal(loaded.errors(states(9, 2)), made.errors(states(9, 2)))
    assert (loaded.C_, loaded.kinds_, loaded.carried_over_) == (made.C_, made.kinds_, made.carried_over_)
    assert loaded.fingerprint == made.fingerprint and loaded.describe(MADE) == made.describe(MADE)
    with pytest.raises(ProvenanceError, match="layer"):
        loaded.errors(Signal(states(9, 2), replace(STATES, layers=(6, 18))))


def test_a_guard_of_flat_states_is_saved_too(tmp_path: Path) -> None:
    X, y, _ = training()
    made = ProbeGuard().fit(X[:, 0, 0], y)
    made.save(tmp_path / "guard.safetensors")
    fresh = states(9, 2)[:, 0, 0]
    np.testing.assert_array_equal(ProbeGuard.load(tmp_path / "guard.safetensors").errors(fresh), made.errors(fresh))


def test_place_errors_can_be_watched(guard: ProbeGuard) -> None:
    held_out, harmful = guard.place_errors(states(300, 30)), guard.place_errors(states(50, 31, 1.5))
    stream = StreamingGuard(0.05, side="high").fit(held_out[:150], calibration=held_out[150:])
    assert (stream.stops(harmful) > 0).mean() > 0.8
    np.testing.assert_array_equal(guard.steps_of([0, 1, 2], 32), [0, 16, 32])
    np.testing.assert_array_equal(guard.place_error(states(7, 9)[:, 1], 1), guard.place_errors(states(7, 9))[:, 1])


def test_what_cannot_be_used_is_refused(guard: ProbeGuard) -> None:
    X, y, groups = training()
    with pytest.raises(InputError, match="requires y"):
        ProbeGuard().fit(X)
    for wrong in (y - 1, np.where(y, "harmful", "harmless"), np.where(y, np.nan, 0)):
        with pytest.raises(InputError, match="expected 0 for harmless and 1"):
            ProbeGuard().fit(X, wrong)
    with pytest.raises(InputError, match="one class, 0"):
        ProbeGuard().fit(X[y == 0], y[y == 0])
    with pytest.raises(InputError, match="groups has shape"):
        ProbeGuard().fit(X, y, groups=groups[:-1])
    with pytest.raises(InputError, match="C is -1"):
        ProbeGuard(C=-1).fit(X, y)
    with pytest.raises(InputError, match="C is empty"):
        ProbeGuard(C=[]).fit(X, y)
    with pytest.raises(InputError, match="NaN"):
        guard.errors(np.full((3, 2, 2, 12), np.nan))
    with pytest.raises(InputError, match="guard looks at 2"):
        guard.errors(states(5, 0)[:, :1])
