"""The direction guard: the discriminant it computes, what it flags, shapes, files, provenance."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.exceptions import NotFittedError

from demur.errors import InputError, ProvenanceError
from demur.guards import DirectionGuard, states_of, steps_at
from demur.provenance import Provenance
from demur.signal import Signal

MADE = Provenance("toy", "f" * 64, {"name": "Autoregressive", "steps": 8, "seed": 0}, (6, 12))
STATES = replace(MADE, anchors="states at (0.5, 1.0)")
RNG = np.random.default_rng(5)
MIX = RNG.normal(size=(12, 12)) * np.linspace(0.1, 3, 12)
TOWARDS = RNG.normal(size=12) * 0.8


def states(count: int, seed: int, harm: float = 0.0) -> np.ndarray:
    """Of two places and layers, scattered far more along some directions than others."""
    rng = np.random.default_rng(seed)
    scatter = rng.normal(size=(count, 2, 2, 12)) @ MIX
    return (1 + scatter + harm * TOWARDS).astype(np.float32)


@pytest.fixture(scope="module")
def guard() -> DirectionGuard:
    return DirectionGuard(0.95).fit(states(600, 0), harmful=states(200, 1, 1.0), calibration=states(400, 2))


def test_the_error_is_fishers_discriminant_in_standard_deviations(guard: DirectionGuard) -> None:
    train, harmful, fresh = states(600, 0), states(200, 1, 1.0), states(20, 3, 0.5)
    expected = np.zeros(20)
    for place, layer in np.ndindex(2, 2):
        harmless = train[:, place, layer].astype(np.float64)
        towards = harmful[:, place, layer].mean(axis=0) - harmless.mean(axis=0)
        direction = np.linalg.solve(LedoitWolf().fit(harmless).covariance_, towards)
        projected = (np.stack([*harmless, *fresh[:, place, layer]]) - harmless.mean(axis=0)) @ direction
        expected += projected[600:] / projected[:600].std() / 4
    np.testing.assert_allclose(guard.errors(fresh), expected, rtol=1e-4, atol=1e-5)


def test_it_sees_what_the_plain_difference_of_means_does_not(guard: DirectionGuard) -> None:
    half = states(400, 4, 0.5)
    assert (guard.predict(half) == -1).mean() > 0.8
    plain = TOWARDS / np.linalg.norm(TOWARDS)
    limit = np.quantile((states(400, 2) @ plain).mean(axis=(1, 2)), 0.95)
    assert ((half @ plain).mean(axis=(1, 2)) > limit).mean() < 0.5


def test_the_side_away_from_harm_passes(guard: DirectionGuard) -> None:
    assert (guard.predict(states(100, 5, -2.0)) == 1).all()


def test_harmless_generations_are_flagged_as_seldom_as_calibrated(guard: DirectionGuard) -> None:
    flagged = float((guard.predict(states(4000, 6)) == -1).mean())
    assert guard.calibrated_ and guard.false_positive_low_ <= flagged <= guard.false_positive_high_


def test_a_saved_guard_gives_the_same_errors_and_refuses_other_states(guard: DirectionGuard, tmp_path: Path) -> None:
    made = DirectionGuard(0.9).fit(
        Signal(states(100, 0), STATES), harmful=Signal(states(50, 1, 1.0), replace(STATES, prompts="others"))
    )
    made.save(tmp_path / "guard.safetensors")
    loaded = DirectionGuard.load(tmp_path / "guard.safetensors")
    np.testing.assert_array_equal(loaded.errors(states(9, 2)), made.errors(states(9, 2)))
    assert loaded.get_params() == {"quantile": 0.9, "places": (0.5, 1.0)}
    assert loaded.describe(MADE) == made.describe(MADE)
    with pytest.raises(NotFittedError):
        _ = DirectionGuard().fingerprint
    with pytest.raises(ProvenanceError, match="layer"):
        loaded.errors(Signal(states(9, 2), replace(STATES, layers=(6, 18))))


def test_places_are_the_same_whatever_numbers_they_are(tmp_path: Path) -> None:
    given = [np.arange(1, 3) / 2, [np.float64(0.5), np.float64(1)], (0.5, 1)]
    guards = [
        DirectionGuard(places=one).fit(Signal(states(60, 0), STATES), harmful=states(30, 1, 1.0)) for one in given
    ]
    for guard in guards:
        guard.save(tmp_path / "guard.safetensors")
        assert DirectionGuard.load(tmp_path / "guard.safetensors").fingerprint == guards[0].fingerprint
    elsewhere = replace(MADE, anchors="states at (0.25, 0.75)")
    with pytest.raises(InputError, match=r"states at \(0.25, 0.75\); the guard looks at \[0.5, 1.0\]"):
        DirectionGuard().fit(Signal(states(60, 0), elsewhere), harmful=states(30, 1, 1.0))
    with pytest.raises(InputError, match="expected ascending shares"):
        DirectionGuard(places=(1.0, 0.5)).fit(states(60, 0), harmful=states(30, 1, 1.0))


def test_a_step_is_a_share_rounded_up_and_no_float_error_adds_one() -> None:
    assert steps_at((0.07, 0.14, 0.28, 0.281, 1.0), 100) == (7, 14, 28, 29, 100)
    assert steps_at((0.001, 0.5), 3) == (1, 2)


def test_the_stops_of_a_streaming_guard_become_steps(guard: DirectionGuard) -> None:
    np.testing.assert_array_equal(guard.steps_of([0, 1, 2], 32), [0, 16, 32])


def test_what_cannot_be_used_is_refused(guard: DirectionGuard) -> None:
    with pytest.raises(InputError, match="harmful=…"):
        DirectionGuard().fit(states(50, 0))
    with pytest.raises(InputError, match="expected one"):
        DirectionGuard().fit(states(50, 0), harmful=states(50, 0)[:, :1])
    with pytest.raises(InputError, match=r"expected \[prompts, 2, 2, 12\]"):
        guard.errors(states(5, 0)[:, :, :1])
    with pytest.raises(InputError, match="states at 1 places; the guard looks at 2"):
        guard.errors(states(5, 0)[:, :1])
    with pytest.raises(InputError, match="places is"):
        DirectionGuard(places=(0.5, 2)).fit(states(50, 0), harmful=states(50, 0))
    with pytest.raises(InputError, match=r"expected \[n, 2, 12\]"):
        guard.place_error(states(5, 0)[:, 0, :1], 0)
    with pytest.raises(InputError, match=r"expected \[prompts, places, layers, width\]"):
        DirectionGuard().fit(states(50, 0)[:, 0], harmful=states(50, 0)[:, 0])
    with pytest.raises(InputError, match="NaN"):
        guard.errors(np.full((3, 2, 2, 12), np.nan))


class Phi:
    """A recording of five prompts and eight steps in two batches, out of order."""

    provenance = MADE
    table = pd.DataFrame({"refused": [False] * 5})
    phi = np.arange(5 * 8 * 2 * 3, dtype=np.float32).reshape(5, 8, 2, 3)

    def phi_batches(self):  # type: ignore[no-untyped-def]
        yield np.array([4, 0]), self.phi[[4, 0]]
        yield np.array([1, 2, 3]), self.phi[[1, 2, 3]]


def test_states_are_those_of_the_places_in_the_order_of_the_table() -> None:
    found = states_of(Phi(), (0.1, 0.5, 1))
    np.testing.assert_array_equal(found, Phi.phi[:, [0, 3, 7]])
    assert found.provenance is not None and found.provenance.layers == (6, 12)
    np.testing.assert_array_equal(states_of(Phi(), (0.5,), (12,)), Phi.phi[:, [3]][:, :, [1]])
    with pytest.raises(InputError, match="places"):
        states_of(Phi(), (0, 1))
    with pytest.raises(InputError, match="holds layers"):
        states_of(Phi(), layers=(7,))


def test_the_error_is_the_mean_of_those_of_its_places(guard: DirectionGuard) -> None:
    fresh = states(7, 9, 0.3)
    assert guard.place_errors(fresh).shape == (7, 2)
    np.testing.assert_allclose(guard.place_errors(fresh).mean(axis=1), guard.errors(fresh), rtol=1e-5, atol=1e-6)
    for place in range(2):
        np.testing.assert_array_equal(guard.place_error(fresh[:, place], place), guard.place_errors(fresh)[:, place])
