"""Guards that cannot judge: no damaged file is loaded, and what is not a number is flagged or stopped."""

import os
import random
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from demur.defenses.live.watching import Reading, Watching
from demur.errors import InputError
from demur.files.arrays import read_arrays, write_arrays
from demur.guards import (
    DetectorGuard,
    DirectionGuard,
    SRIGuard,
    StreamingGuard,
    TrajectoryGuard,
    load_guard,
)
from demur.guards.base import Guard
from demur.guards.outlier.isolation import forest_errors
from demur.provenance import Provenance
from demur.signal import AnchorCount, Anchors

STEPS, FLIPS = 12, 200
MADE = Provenance("toy", "f" * 64, {"name": "Autoregressive", "steps": STEPS, "seed": 0}, (1, 2))


def _signals(count: int) -> np.ndarray:
    drawn = np.random.default_rng(count).standard_normal((count, STEPS))
    return np.asarray(0.9 + 0.03 * drawn)


@pytest.fixture(scope="module")
def guards() -> dict[str, Guard]:
    detectors = ("mahalanobis", "pca", "neighbours", "one-class-svm", "isolation-forest")
    guards: dict[str, Guard] = {name: DetectorGuard(name, random_state=0) for name in detectors}
    guards |= {"sri": SRIGuard(random_state=0, max_iter=3, n_init=1), "streaming": StreamingGuard(0.05)}
    guards |= {
        "high": StreamingGuard(0.05, side="high"),
        "trajectory": TrajectoryGuard(("mean", "steps"), detector="pca"),
    }
    found = {name: guard.fit(_signals(60), calibration=_signals(40)) for name, guard in guards.items()}
    harmless, harmful = np.random.default_rng(0).standard_normal((2, 100, 2, 1, 6))
    return found | {"direction": DirectionGuard().fit(harmless[:60], harmful=harmful + 1, calibration=harmless[60:])}


@pytest.fixture(scope="module")
def anchors() -> Anchors:
    rng = np.random.default_rng(0)
    harmless, harmful = rng.standard_normal((2, STEPS, 2, 4), dtype=np.float32)
    counts = {"harmless": AnchorCount(20, 2, 18), "harmful": AnchorCount(20, 15, 15)}
    return Anchors(harmless, harmful, (1, 2), counts, MADE)


pytestmark = pytest.mark.filterwarnings("ignore:.*too few for the quantile")

NAMES = ["mahalanobis", "pca", "neighbours", "one-class-svm", "isolation-forest", "sri", "streaming", "high"]
NAMES += ["trajectory", "direction"]


def _inputs(guard: Guard) -> np.ndarray:
    if isinstance(guard, DirectionGuard):
        return np.random.default_rng(1).standard_normal((24, *guard.centre_.shape))
    return np.concatenate([_signals(12), np.random.default_rng(1).random((12, STEPS))])


@pytest.mark.parametrize("name", NAMES)
def test_no_flipped_bit_of_a_guards_file_is_accepted(guards: dict[str, Guard], name: str, tmp_path: Path) -> None:
    path, values = tmp_path / "g.safetensors", _inputs(guards[name])
    guards[name].save(path)
    np.testing.assert_array_equal(load_guard(path).errors(values), guards[name].errors(values))
    _flip_each(path, lambda: load_guard(path))


def test_no_flipped_bit_of_an_anchors_file_is_accepted(anchors: Anchors, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    anchors.save(path)
    assert Anchors.load(path).fingerprint == anchors.fingerprint
    _flip_each(path, lambda: Anchors.load(path))


def _flip_each(path: Path, load: Callable[[], Any]) -> None:
    whole, draw = path.read_bytes(), random.Random(path.stem)
    for _ in range(FLIPS):
        damaged = bytearray(whole)
        # Every second flip in the header, which is short beside the arrays.
        end = len(whole) if draw.random() < 0.5 else 8 + int.from_bytes(whole[:8], "little")
        damaged[draw.randrange(end)] ^= 1 << draw.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=path.name):
            load()


def _forge(guard: Guard, path: Path, change: Callable[[dict[str, Any], dict[str, Any]], None]) -> None:
    """A file with a right hash around what `change` makes of arrays and header."""
    guard.save(path)
    arrays, header = read_arrays(path, guard._kind)
    change(arrays, header)
    write_arrays(path, arrays, header)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", NAMES)
def test_no_number_of_a_guard_may_be_other_than_finite(
    guards: dict[str, Guard], name: str, wrong: float, tmp_path: Path
) -> None:
    for array in [key for key, value in guards[name]._state()[0].items() if value.dtype.kind == "f"]:
        if (array, wrong) in (("below", np.inf), ("above", np.inf)):
            continue  # where a feature cannot be too low or too high; tested below

        def spoil(arrays: dict[str, Any], header: dict[str, Any], array: str = array) -> None:
            arrays[array].flat[-1] = wrong

        _forge(guards[name], tmp_path / "g", spoil)
        with pytest.raises(InputError, match=r"g: its header and arrays do not fit"):
            load_guard(tmp_path / "g")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("threshold_", wrong) for wrong in (np.nan, np.inf, -np.inf, None, "1", True, 5.0)],
        *[("offset_", wrong) for wrong in (np.nan, 3.0)],
        *[("n_calibration_", wrong) for wrong in (0, -1, 1.5, True, None)],
        *[("calibrated_", wrong) for wrong in (False, 1, None)],
        *[("false_positive_low_", wrong) for wrong in (np.nan, -0.1, 1.0)],
        *[("false_positive_high_", wrong) for wrong in (np.nan, 1.1, None)],
    ],
)
def test_a_limit_that_cannot_be_is_refused(guards: dict[str, Guard], field: str, value: Any, tmp_path: Path) -> None:
    for name in ("pca", "streaming", "direction"):
        _forge(guards[name], tmp_path / "g", lambda _, header: header["fitted"].__setitem__(field, value))
        with pytest.raises(InputError, match="do not fit"):
            load_guard(tmp_path / "g")


@pytest.mark.parametrize(
    ("name", "parameter", "value"),
    [
        *[("sri", "quantile", wrong) for wrong in (0, 1, np.nan, "0.9", True, None)],
        *[("streaming", "alpha", wrong) for wrong in (0, 1.0, np.nan)],
        *[("streaming", "side", wrong) for wrong in ("low", "high", None)],
        *[("streaming", "least_tail", wrong) for wrong in (0, np.inf)],
        *[("pca", "detector", wrong) for wrong in ("mahalanobis", "neighbours", "none", 3)],
        *[("trajectory", "summaries", wrong) for wrong in (["mean"], [], ["none"], None)],
        *[("direction", "places", wrong) for wrong in ([0.5], [1.0, 0.5], [np.nan, 1.0], [], "ab", [0.2, 0.5, 1])],
        ("sri", "unknown", 1),
    ],
)
def test_parameters_that_do_not_belong_to_the_arrays_are_refused(
    guards: dict[str, Guard], name: str, parameter: str, value: Any, tmp_path: Path
) -> None:
    _forge(guards[name], tmp_path / "g", lambda _, header: header["parameters"].__setitem__(parameter, value))
    with pytest.raises(InputError, match="do not fit"):
        load_guard(tmp_path / "g")


@pytest.mark.parametrize("name", NAMES)
def test_arrays_of_other_shapes_kinds_or_names_are_refused(guards: dict[str, Guard], name: str, tmp_path: Path) -> None:
    changes: list[Callable[[np.ndarray], np.ndarray]] = [
        lambda array: array[:1] if len(array) > 1 else np.concatenate([array, array]),
        lambda array: array[None],
        lambda array: np.zeros(array.shape, dtype=np.int8),
        lambda array: array[:0],
    ]
    for array in guards[name]._state()[0]:
        # Fewer points or components are another guard, which only the hash tells apart.
        free = array in ("detector.points", "detector.components")
        for change in changes[1:3] if free else changes:
            _forge(guards[name], tmp_path / "g", lambda arrays, _, a=array, c=change: arrays.update({a: c(arrays[a])}))
            with pytest.raises(InputError, match="do not fit"):
                load_guard(tmp_path / "g")
        _forge(guards[name], tmp_path / "g", lambda arrays, _, a=array: arrays.pop(a) is None)
        with pytest.raises(InputError, match="do not fit"):
            load_guard(tmp_path / "g")
    _forge(guards[name], tmp_path / "g", lambda arrays, _: arrays.update(more=np.zeros(2)))
    with pytest.raises(InputError, match="do not fit"):
        load_guard(tmp_path / "g")


@pytest.mark.parametrize("tail", ["below", "above"])
@pytest.mark.parametrize("name", ["streaming", "high"])
def test_a_tail_is_infinite_only_where_a_feature_cannot_be_strange(
    guards: dict[str, Guard], name: str, tail: str, tmp_path: Path
) -> None:
    for column in range(3):

        def turn(arrays: dict[str, Any], header: dict[str, Any], column: int = column) -> None:
            arrays[tail][3, column] = 1.0 if np.isinf(arrays[tail][3, column]) else np.inf

        _forge(guards[name], tmp_path / "g", turn)
        with pytest.raises(InputError, match="tails are infinite where they must not be"):
            load_guard(tmp_path / "g")


@pytest.mark.parametrize(
    ("array", "place", "value"),
    [
        ("left", (0, 0), 0),  # a cycle of one node
        ("right", (3, 0), 0),
        ("left", (1, 0), -1),
        ("left", (1, 0), 10**6),
        ("column", (2, 0), STEPS),
        ("column", (2, 0), -1),
        ("path", (0, 1), -1.0),
    ],
)
def test_a_forest_with_a_cycle_or_a_way_out_is_refused(
    guards: dict[str, Guard], array: str, place: tuple[int, int], value: float, tmp_path: Path
) -> None:
    _forge(
        guards["isolation-forest"],
        tmp_path / "g",
        lambda arrays, _: arrays[f"detector.{array}"].__setitem__(place, value),
    )
    with pytest.raises(InputError, match=r"cycle|paths are below"):
        load_guard(tmp_path / "g")


def test_a_cycle_in_memory_ends_too(guards: dict[str, Guard]) -> None:
    learned = {key.removeprefix("detector."): np.copy(a) for key, a in guards["isolation-forest"]._state()[0].items()}
    learned["left"][:, 0] = learned["right"][:, 0] = 1
    learned["left"][:, 1] = learned["right"][:, 1] = 0
    assert len(forest_errors(learned, _signals(3))) == 3


def test_a_covariance_under_which_something_is_less_than_usual_is_refused(
    guards: dict[str, Guard], tmp_path: Path
) -> None:
    for change in (lambda p: -p, lambda p: p + np.eye(STEPS, k=1)):
        _forge(
            guards["mahalanobis"],
            tmp_path / "g",
            lambda arrays, _, c=change: arrays.update({"detector.precision": c(arrays["detector.precision"])}),
        )
        with pytest.raises(InputError, match="do not fit"):
            load_guard(tmp_path / "g")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("feature_names", ["a"]),
        ("feature_names", [1] * STEPS),
        ("provenance", {**MADE.to_dict(), "fingerprint": 3}),
        ("provenance", {**MADE.to_dict(), "layers": ["1"]}),
        ("provenance", {**MADE.to_dict(), "sampler": []}),
        ("provenance", {**MADE.to_dict(), "count": True}),
        ("provenance", {**MADE.to_dict(), "more": 1}),
        ("provenance", {}),
        ("parameters", []),
        ("fitted", None),
    ],
)
def test_headers_of_another_kind_are_refused(guards: dict[str, Guard], field: str, value: Any, tmp_path: Path) -> None:
    if value == {}:
        _forge(guards["sri"], tmp_path / "g", lambda _, header: header.pop(field))
    else:
        _forge(guards["sri"], tmp_path / "g", lambda _, header: header.__setitem__(field, value))
    with pytest.raises(InputError, match="do not fit"):
        load_guard(tmp_path / "g")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_a_number_is_refused_and_a_limit_that_is_none_flags_all(
    guards: dict[str, Guard], name: str
) -> None:
    guard, values = guards[name], _inputs(guards[name])
    for wrong in (np.nan, np.inf):
        spoiled = values.copy()
        spoiled.flat[3] = wrong
        with pytest.raises(InputError, match="cannot be used"):
            guard.predict(spoiled)
    threshold = guard.threshold_
    guard.threshold_, guard.offset_ = float("nan"), float("nan")
    try:
        assert (guard.predict(values) == -1).all()
        if isinstance(guard, StreamingGuard):
            assert (guard.stops(values) == 1).all()
    finally:
        guard._set_threshold(threshold)


def test_errors_without_bound_give_no_limit() -> None:
    guard = DetectorGuard("pca").fit(_signals(60))
    with pytest.raises(InputError, match="which nothing exceeds"), np.errstate(all="ignore"):
        guard.calibrate(np.full((40, STEPS), 1e200))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_watch_stops_what_is_not_a_number_and_never_lets_it_go(guards: dict[str, Guard], wrong: float) -> None:
    guard = guards["streaming"]
    assert isinstance(guard, StreamingGuard)
    watch = guard.watch(2)
    usual = guard.usual_.centre[:, 0]
    assert watch.update([usual[0], usual[0]]).tolist() == [False, False]
    assert watch.update([usual[1], wrong]).tolist() == [False, True]
    assert np.isinf(watch.scores[1])
    for step in range(2, STEPS):
        assert watch.update([usual[step], usual[step]]).tolist() == [False, True]
        assert np.isinf(watch.scores).tolist() == [False, True]
    assert watch.stopped_at.tolist() == [0, 2]


def test_a_watch_with_a_limit_that_is_no_number_stops_all(guards: dict[str, Guard]) -> None:
    guard = guards["streaming"]
    assert isinstance(guard, StreamingGuard)
    watch = guard.watch(2)
    watch.threshold = float("nan")
    assert watch.update([0.9, 0.9]).all()


def test_a_generation_whose_states_are_lost_is_stopped_and_named(anchors: Anchors) -> None:
    guard = StreamingGuard(0.05).fit(
        np.full((30, STEPS), 0.5), calibration=np.random.default_rng(0).random((40, STEPS))
    )
    reading = Reading.of(anchors, guard, 2)
    phi = torch.ones(3, 1, 4)
    spoiled = phi.clone()
    spoiled[1, 0, 2] = torch.nan
    whole, watch = Watching(reading, guard, 3), Watching(reading, guard, 3)
    assert not whole.update(phi, 1).any()
    with pytest.warns(UserWarning, match=r"rows \[1\] of the batch are not finite at step 1"):
        assert watch.update(spoiled, 1).tolist() == [False, True, False]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        watch.update(spoiled, 2)
    whole.update(phi, 2)
    np.testing.assert_array_equal(watch.scores[[0, 2]], whole.scores[[0, 2]])


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays, _: arrays["harmful"].__setitem__((0, 0, 0), np.nan),
        lambda arrays, _: arrays.update(harmful=arrays["harmful"][:-1]),
        lambda arrays, _: arrays.update(harmful=arrays["harmful"].astype(np.float16)),
        lambda arrays, _: arrays.update(harmful=arrays["harmful"][:0], harmless=arrays["harmless"][:0]),
        lambda arrays, _: arrays.update(more=arrays["harmful"]),
        lambda _, header: header.update(layers=[1, 1]),
        lambda _, header: header.update(layers=[2, 1]),
        lambda _, header: header.update(layers=[1, "2"]),
        lambda _, header: header.update(layers=[True, 2]),
        lambda _, header: header["counts"].update(other={"seen": 1, "refused": 1, "kept": 1}),
        lambda _, header: header["counts"]["harmful"].update(kept=21),
        lambda _, header: header["counts"]["harmful"].update(kept=0),
        lambda _, header: header["counts"]["harmful"].update(refused=-1),
        lambda _, header: header["counts"]["harmful"].update(seen=20.5),
        lambda _, header: header["counts"].update(harmful=[1, 2]),
        lambda _, header: header.update(provenance={**MADE.to_dict(), "fingerprint": None}),
        lambda _, header: header.pop("layers") is None,
    ],
)
def test_anchors_that_cannot_be_are_refused(
    anchors: Anchors, change: Callable[[dict[str, Any], dict[str, Any]], None], tmp_path: Path
) -> None:
    anchors.save(tmp_path / "a")
    arrays, header = read_arrays(tmp_path / "a", "anchors")
    change(arrays, header)
    write_arrays(tmp_path / "a", arrays, header)
    with pytest.raises(InputError, match="a: its header and arrays do not fit"):
        Anchors.load(tmp_path / "a")


def test_neighbours_are_those_of_scikit_learn(guards: dict[str, Guard]) -> None:
    from sklearn.neighbors import NearestNeighbors

    guard = guards["neighbours"]
    assert isinstance(guard, DetectorGuard)
    learned, values = guard.learned_, _inputs(guard)
    scaled = (values - learned["centre"]) / learned["scale"]
    found = NearestNeighbors(n_neighbors=5).fit(learned["detector.points"]).kneighbors(scaled)[0].mean(axis=1)
    np.testing.assert_allclose(guard.errors(values), found, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_a_forked_process_judges_as_its_parent_did(guards: dict[str, Guard], name: str) -> None:
    guard, values = guards[name], np.repeat(_inputs(guards[name]), 40, axis=0)
    expected = guard.score_samples(values)
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(guard.score_samples(values), expected) else 1)
    started = time.monotonic()
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() - started > 10:
            os.kill(child, 9)
            os.waitpid(child, 0)
            pytest.fail("the forked process hangs")
        time.sleep(0.01)
    assert ended[1] == 0


def test_an_error_spells_out_what_a_terminal_would_obey() -> None:
    error = InputError("r/\x1b[31m\x07\u202e\ud800é\nx")
    assert str(error) == "r/\\x1b[31m\\x07\\u202e\\ud800é\nx"
