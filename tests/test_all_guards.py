"""What holds for every guard: scikit-learn's checks, a file of its own kind, a summary, options by name."""

import inspect
import warnings
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

from demur.errors import InputError
from demur.guards import (
    GUARDS,
    DetectorGuard,
    DirectionGuard,
    Guard,
    ProbeGuard,
    SRIGuard,
    StreamingGuard,
    TrajectoryGuard,
    load_guard,
)
from demur.provenance import Provenance
from demur.signal import Signal

EVERY: list[Guard] = [
    SRIGuard(max_iter=5, n_init=2, random_state=0),
    DetectorGuard(),
    DirectionGuard(),
    ProbeGuard(),
    StreamingGuard(),
    TrajectoryGuard(),
]
EXPECTED: dict[type[Guard], dict[str, str]] = {}
"""By guard: the checks of scikit-learn that it need not pass, each with the reason. There are none."""
MADE = Provenance(
    "m", "f" * 64, {"name": "Autoregressive", "steps": 8}, (4,), {}, "p", 300, {"demur": "0.1.0"}, "states at (1.0,)"
)
RNG = np.random.default_rng(0)


def expected(guard: Guard) -> dict[str, str]:
    return EXPECTED.get(type(guard), {})


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(EVERY, expected_failed_checks=expected)  # type: ignore[untyped-decorator]
def test_every_check_of_scikit_learn_passes(estimator: Guard, check: Any) -> None:
    try:
        check(estimator)
    except SkipTest as reason:  # a check of inputs that only an option of SciPy allows
        assert "SCIPY_ARRAY_API is not set" in str(reason)


def fitted(guard: Guard, made: Provenance | None = MADE) -> Guard:
    """The guard fitted on 300 generations and calibrated on 200 others, as it is meant to be."""
    X = RNG.normal(0.5, 0.1, (500, 8)).astype(np.float32)
    one = clone(guard)
    train = X[:300] if made is None else Signal(X[:300], made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        supervised = one.__sklearn_tags__().target_tags.required
        return one.fit(train, np.arange(300) % 2 if supervised else None, calibration=X[300:])


def test_every_guard_is_checked_and_registered() -> None:
    own = {name: one for name, one in GUARDS.items() if one.__module__.startswith("demur.")}
    assert set(own.values()) == {type(guard) for guard in EVERY}
    assert own == {one._kind: one for one in own.values()}


@pytest.mark.parametrize("guard", EVERY, ids=lambda guard: type(guard).__name__)
def test_options_are_given_by_name(guard: Guard) -> None:
    kinds = [one.kind for one in list(inspect.signature(type(guard)).parameters.values())]
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for kind in kinds[1:])


@pytest.mark.parametrize("guard", EVERY, ids=lambda guard: type(guard).__name__)
def test_a_file_is_loaded_as_the_class_that_wrote_it(guard: Guard, tmp_path: Path) -> None:
    made = fitted(guard, None)
    made.save(tmp_path / "guard.safetensors")
    loaded = load_guard(tmp_path / "guard.safetensors")
    assert type(loaded) is type(guard) and loaded.summary() == made.summary()


@pytest.mark.parametrize("guard", EVERY, ids=lambda guard: type(guard).__name__)
def test_a_summary_says_what_a_guard_was_made_from(guard: Guard) -> None:
    made = fitted(guard, None if isinstance(guard, DirectionGuard | ProbeGuard) else MADE)
    found = made.summary()
    assert found["guard"] == type(guard).__name__ and found["kind"] == type(guard)._kind
    assert found["threshold"] == made.threshold_ and found["calibrated_on"] == 200
    assert found["false_positives"] == [made.false_positive_low_, made.false_positive_high_]
    allowed = guard.alpha if isinstance(guard, StreamingGuard) else 1 - guard.quantile  # type: ignore[attr-defined]
    assert found["false_positives_allowed"] == pytest.approx(allowed)
    origin = {name: found[name] for name in ("model", "sampler", "layers", "prompts", "versions")}
    if made.provenance_ is None:
        assert set(origin.values()) == {None}
    else:
        assert origin == {
            "model": "m", "sampler": dict(MADE.sampler), "layers": [4], "prompts": 300, "versions": {"demur": "0.1.0"}
        }  # fmt: skip


def labelled(count: int) -> tuple[np.ndarray, np.ndarray]:
    states, y = RNG.normal(size=(count, 2, 1, 8)), np.arange(count) % 2
    states[y == 1, ..., 0] += 2
    return states, y


def test_labels_and_harmful_states_by_themselves_give_one_direction_guard() -> None:
    states, y = labelled(400)
    held_out = RNG.normal(size=(200, 2, 1, 8))
    by_labels = DirectionGuard(0.9).fit(states, y, calibration=held_out)
    apart = DirectionGuard(0.9).fit(states[y == 0], harmful=states[y == 1], calibration=held_out)
    assert by_labels.fingerprint == apart.fingerprint and by_labels.threshold_ == apart.threshold_


def test_labels_beside_harmful_states_are_refused() -> None:
    states, y = labelled(40)
    with pytest.raises(InputError, match="y and harmful both say"):
        DirectionGuard().fit(states, y, harmful=states)
    with pytest.raises(InputError, match="one class"):
        DirectionGuard().fit(states, np.zeros(40))


@pytest.mark.parametrize("guard", [DirectionGuard(), ProbeGuard()], ids=lambda guard: type(guard).__name__)
def test_flat_states_are_refused_by_a_guard_of_several_places(guard: Guard) -> None:
    states, y = labelled(100)
    made = clone(guard).fit(states, y)
    with pytest.raises(InputError, match=r"states of shape \[100, 16\]; expected \[prompts, 2, 1, 8\]"):
        made.errors(states.reshape(100, -1))
