"""What happens exactly at a limit, with nothing to spare, and with the least that there can be."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from demur.errors import InputError, ProvenanceError
from demur.guards import DirectionGuard, SRIGuard
from demur.guards.calibration import false_positive_interval
from demur.guards.streaming.watch import FEATURES, Beginnings, Usual, Watch
from demur.provenance import Provenance
from demur.signal import Anchors, Signal, sri, sri_features

MADE = Provenance("toy", "f" * 64, {"name": "Autoregressive", "steps": 2}, (1,))
STATES = replace(MADE, anchors="states at (0.5, 1.0)")


def test_a_score_at_the_limit_is_not_stopped_and_the_next_number_is() -> None:
    """The bound of a conformal limit counts what is above it; stopping ties too would break it."""
    usual = Usual(np.zeros((2, 3)), np.ones((2, 3)), np.ones((2, 3)))
    watch = Watch(usual, 2.0, 3)
    assert watch.update([2.0, np.nextafter(2.0, 3), -2.0]).tolist() == [False, True, False]
    assert watch.scores[0] == 2.0 and watch.stopped_at.tolist() == [0, 1, 0]


def test_an_error_at_the_threshold_passes_and_the_next_number_is_flagged() -> None:
    signals = np.random.default_rng(0).random((40, 4))
    guard = SRIGuard(max_iter=1, n_init=1, random_state=0).fit(signals, calibration=signals)
    error = float(guard.errors(signals[:1])[0])
    for threshold, verdict in ((error, 1), (np.nextafter(error, 0), -1)):
        guard.threshold_, guard.offset_ = threshold, -threshold
        assert guard.predict(signals[:1]).tolist() == [verdict]


@pytest.mark.parametrize(
    ("count", "quantile", "ranks"), [(30, 0.99, (29, 30)), (101, 0.99, (100, 100)), (50, 0.5, (25, 26))]
)
def test_each_end_of_the_false_positive_interval_comes_from_its_own_order_statistic(
    count: int, quantile: float, ranks: tuple[int, int]
) -> None:
    below, above = ranks
    found = false_positive_interval(count, quantile)
    expected = beta.ppf(0.025, count - above + 1, above), beta.ppf(0.975, count - below + 1, below)
    assert found == pytest.approx(expected)


def states(shift: float = 0.0, made: Provenance | None = STATES) -> Signal:
    values = np.random.default_rng(0).standard_normal((40, 2, 1, 3)) + shift
    return Signal(values, made)


def test_harmful_states_of_another_model_make_no_direction() -> None:
    other = replace(STATES, fingerprint="0" * 64)
    with pytest.raises(ProvenanceError, match="the harmless states and the harmful states do not belong together"):
        DirectionGuard().fit(states(), harmful=states(2, other))
    DirectionGuard().fit(states(), harmful=states(2))
    DirectionGuard().fit(states(), harmful=states(2, None))


def test_states_that_do_not_vary_at_all_still_have_a_direction() -> None:
    still = np.zeros((40, 2, 1, 3))
    guard = DirectionGuard().fit(still, harmful=still + 1, calibration=still)
    assert np.isfinite(guard.errors(still)).all()
    assert guard.predict(still + 1).tolist() == [-1] * 40


class Net:
    """An autoencoder that only says how well it does."""

    def __init__(self, loss: float) -> None:
        self.loss_, self.passes = loss, 0

    def partial_fit(self, values: Any, target: Any) -> None:
        self.passes += 1


def test_of_several_beginnings_the_one_with_the_least_loss_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    nets = [Net(3.0), Net(1.0), Net(2.0)]
    waiting = iter(nets)
    monkeypatch.setattr(SRIGuard, "_begin", lambda self, rows, seed: next(waiting))
    found = SRIGuard(n_init=3, max_iter=50, random_state=0)._train(np.zeros((5, 4)))
    assert found is nets[1]
    assert [net.passes for net in nets] == [20, 50, 20]


def test_movement_is_the_mean_over_the_changes_which_are_one_less_than_the_steps() -> None:
    beginnings, place = Beginnings(1), FEATURES.index("movement")
    movements = [float(beginnings.add(np.array([value]))[place, 0]) for value in (0.0, 1.0, 0.0, 3.0)]
    assert movements == pytest.approx([0, 1, 1, 5 / 3])


def test_without_a_layer_the_highest_is_read_wherever_it_is_stored() -> None:
    random = np.random.default_rng(0)
    sides = random.standard_normal((2, 2, 2, 3)).astype(np.float32)
    anchors = Anchors(*sides, layers=(4, 2))
    phi = random.standard_normal((5, 2, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(anchors.score(phi), anchors.score(phi, layer=4))
    assert not np.allclose(anchors.score(phi), anchors.score(phi, layer=2))


@pytest.mark.parametrize("eps", [0.5, 1e-8])
def test_eps_is_added_to_every_distance_and_no_floor_under_it(eps: float) -> None:
    phi, harmless, harmful = np.array([[[1.0, 0.0]]]), np.array([[1.0, 1.0]]), np.array([[-1.0, 2.0]])
    near = 1 - 1 / (1 + eps) / (np.sqrt(2) + eps)  # eps guards the norms too
    far = 1 + 1 / (1 + eps) / (np.sqrt(5) + eps)
    ratio = np.log(far + eps) - np.log(near + eps)
    assert sri(phi, harmless, harmful, tau=1.0, eps=eps)[0, 0] == pytest.approx(1 / (1 + np.exp(-ratio)), rel=1e-5)
    found = np.asarray(sri_features(phi, harmless, harmful, eps))[0, 0]
    assert found == pytest.approx([ratio, np.log(near + eps)], rel=1e-5)


def test_anchors_are_compared_only_where_both_sides_have_some() -> None:
    one, other = replace(MADE, anchors="a" * 64), replace(MADE, anchors="b" * 64)
    assert one.differences(MADE) == MADE.differences(one) == []
    assert len(one.differences(other)) == 1


def test_a_prompt_that_just_fills_the_context_fits_and_one_more_token_does_not() -> None:
    from demur.recording.generate import _require_fits

    model: Any = SimpleNamespace(context_length=40, name="toy", config=SimpleNamespace(vocab_size=2))
    _require_fits(model, "a prompt", [1] * 30, 10)
    with pytest.raises(InputError, match=r"31 tokens and a response of 10 do not fit"):
        _require_fits(model, "a prompt", [1] * 31, 10)
