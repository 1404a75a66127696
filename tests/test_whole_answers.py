"""Guards over whole answers: the decisions of a recording while 2,048 tokens are made, and a promise over all looks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import demur
from demur import InputError
from demur.defenses import GuardDefense, GuardStopping, generate_guarded
from demur.guards import DirectionGuard, LinearGuard, ProbeGuard, StreamingGuard, states_of
from demur.looks import Looks
from demur.models import Model, load
from demur.samplers import Autoregressive, MaskedDiffusion, Sampler
from demur.signal import Signal
from test_looks import FIXTURES, tiny

LENGTH = 2048
END = 5


def some_prompts(count: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [{"token_ids": rng.integers(3, 60, size=rng.integers(2, 9)).tolist()} for _ in range(count)]


def like(states: Signal, count: int, shift: float, seed: int) -> Signal:
    """States such as these, with noise, and moved along the first number."""
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(states), size=count)
    values = np.asarray(states)[chosen] + rng.normal(0, 0.5, (count, *states.shape[1:]))
    values[..., 0] += shift
    return Signal(values, states.provenance, states.lengths[chosen])


def guards_of(
    kind: type[LinearGuard], states: Signal, looks: Looks, **options: Any
) -> tuple[LinearGuard, StreamingGuard]:
    """A guard on looks and a streaming guard on it, which stop some of the generations and not all."""
    harmless, harmful = like(states, 60, 0, 1), like(states, 60, 3, 2)
    X = Signal(np.concatenate([harmless, harmful]), states.provenance)
    source = kind(places=looks).fit(X, np.repeat([0, 1], 60))
    stream = StreamingGuard(side="high", **options).fit(source.place_errors(harmless))
    scores = stream.step_scores(source.place_errors(states)).max(axis=1)
    stream._set_threshold(float(np.sort(scores)[len(scores) // 2 - 1]) + 1e-3)
    return source, stream


@pytest.fixture(scope="module")
def long() -> tuple[Model, list[dict[str, Any]], demur.Recording]:
    """A recording of answers of up to 2,048 tokens, some of which end early."""
    model = tiny(1)
    model.eos_token_ids = [END]
    prompts = some_prompts(6)
    layers = ("first", "last")
    return model, prompts, demur.record(model, prompts, Autoregressive(LENGTH), layers=layers, keep="looks")


def test_whole_answers_are_stopped_as_on_the_recording(
    long: tuple[Model, list[dict[str, Any]], demur.Recording],
) -> None:
    model, prompts, recording = long
    assert len(set(recording.looks_made.tolist())) > 2
    states = states_of(recording, recording.looks)
    source, stream = guards_of(DirectionGuard, states, recording.looks, at_least=2, of_last=3)
    looks = stream.stops(source.place_errors(states))
    stops = source.steps_of(looks, LENGTH)
    assert (stops > 64).any() and (stops == 0).any()
    table = generate_guarded(model, prompts, source, stream, Autoregressive(LENGTH))
    np.testing.assert_array_equal(table["stopped_at"], stops)
    ends = recording.table["tokens"].to_numpy()
    np.testing.assert_array_equal(table["tokens"], np.minimum(ends, np.where(stops > 0, stops, LENGTH)))
    np.testing.assert_array_equal(transformers_stops(model, prompts, source, stream), np.where(stops < ends, stops, 0))


def transformers_stops(
    model: Model, prompts: list[dict[str, Any]], source: LinearGuard, stream: StreamingGuard
) -> np.ndarray:
    """At which steps transformers' own `generate` is stopped."""
    rows = [prompt["token_ids"] for prompt in prompts]
    longest = max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    model.network.generation_config.eos_token_id = model.eos_token_ids
    model.network.generation_config.pad_token_id = 0
    with GuardStopping(model, source, stream) as stopping:
        model.network.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=LENGTH, do_sample=False, stopping_criteria=[stopping]
        )
    return stopping.stopped_at


@pytest.fixture(scope="module", params=["canvas", "tokens"])
def short(request: pytest.FixtureRequest) -> tuple[Model, Sampler, list[dict[str, Any]], demur.Recording]:
    if request.param == "canvas":
        model, sampler = load(FIXTURES / "llada" / "llada_mha", device="cpu"), MaskedDiffusion(8, 32)
    else:
        model, sampler = tiny(1), Autoregressive(20)
    prompts = some_prompts(9)
    return model, sampler, prompts, demur.record(model, prompts, sampler, keep="looks", window=5)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_canvas_and_tokens_are_stopped_as_on_the_recording(short: Any, batch_size: int) -> None:
    model, sampler, prompts, recording = short
    states = states_of(recording, recording.looks)
    source, stream = guards_of(ProbeGuard, states, recording.looks)
    stops = source.steps_of(stream.stops(source.place_errors(states)), sampler.step_count)
    assert 0 < (stops > 0).sum() < 9
    table = generate_guarded(model, prompts, source, stream, sampler, batch_size=batch_size)
    np.testing.assert_array_equal(table["stopped_at"], stops)


def test_the_prompts_own_state_is_judged_before_the_first_token(short: Any) -> None:
    model, sampler, prompts, recording = short
    states = states_of(recording, recording.looks)
    source, stream = guards_of(DirectionGuard, states, recording.looks)
    stream._set_threshold(float(np.median(stream.step_scores(source.place_errors(states))[:, 0])))
    looks = stream.stops(source.place_errors(states))
    assert 1 < (looks == 1).sum() < 8
    table = generate_guarded(model, prompts, source, stream, sampler)
    np.testing.assert_array_equal(table["tokens"] == 0, looks == 1)
    assert (table["stopped_at"][looks == 1] == 1).all()


def test_guards_on_looks_are_kept_in_files_and_refuse_other_looks(short: Any, tmp_path: Path) -> None:
    model, sampler, prompts, recording = short
    states = states_of(recording, recording.looks)
    source, _ = guards_of(ProbeGuard, states, recording.looks)
    source.save(tmp_path / "guard")
    loaded = demur.guards.load(tmp_path / "guard")
    assert loaded.places == recording.looks and loaded.fingerprint == source.fingerprint
    np.testing.assert_array_equal(loaded.errors(states), source.errors(states))
    other = demur.record(model, prompts, sampler, keep="looks", window=7)
    with pytest.raises(InputError, match="window of 5"):
        loaded.states(other)
    with pytest.raises(InputError, match="window of 5"):
        loaded.errors(states_of(other, other.looks))
    blocked = GuardDefense(loaded)([""] * 9, [""] * 9, recording).blocked
    np.testing.assert_array_equal(blocked, loaded.predict(states) == -1)


def answers(count: int, seed: int, looks: int = 24) -> Signal:
    """Made-up harmless answers of different length: walks whose numbers depend on each other and on the length."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, looks + 1, size=count)
    steps = rng.standard_t(4, (count, looks)) * (1 + lengths[:, None] / looks)
    return Signal(steps.cumsum(axis=1) / np.sqrt(np.arange(1, looks + 1)), None, lengths)


@pytest.mark.parametrize(("at_least", "of_last"), [(1, 1), (2, 3), (3, 5)])
def test_at_most_alpha_of_harmless_answers_of_any_length_are_ever_stopped(at_least: int, of_last: int) -> None:
    alpha, rates, behind = 0.05, [], 0
    for draw in range(30):
        guard = StreamingGuard(alpha, at_least=at_least, of_last=of_last)
        guard.fit(answers(100, 3 * draw), calibration=answers(99, 3 * draw + 1))
        new = answers(150, 3 * draw + 2)
        stops = guard.stops(new)
        rates.append((stops > 0).mean())
        behind += int((stops > new.lengths).sum())
    assert behind == 0  # nothing is stopped behind its end
    spread = np.std(rates) / np.sqrt(len(rates))
    assert alpha - 5 * spread < np.mean(rates) < alpha + 3 * spread  # exact on average, over calibrations too


def test_one_wild_look_is_no_evidence_and_two_are() -> None:
    calm = Signal(np.random.default_rng(0).normal(size=(400, 20)), None)
    guard = StreamingGuard(0.05, side="high", at_least=2, of_last=3).fit(calm[:200], calibration=calm[200:])
    wild = np.zeros((3, 20))
    wild[0, 7], wild[1, [7, 9]], wild[2, [7, 10]] = 60, 60, 60
    assert guard.step_scores(wild)[0, :1] == -np.inf  # no two looks yet
    only = StreamingGuard(0.05, side="high").fit(calm[:200], calibration=calm[200:])
    assert only.stops(wild).tolist() == [8, 8, 8]
    stops = guard.stops(wild)
    assert stops[1] == 10 or stops[1] == 9
    watch = guard.watch(3)
    found = np.stack([watch.update(one) for one in wild.T], axis=1)
    np.testing.assert_array_equal(np.where(found.any(1), found.argmax(1) + 1, 0), stops)


def test_lengths_stay_with_the_rows_they_belong_to() -> None:
    signal = Signal(np.zeros((4, 6)), None, [1, 2, 3, 6])
    assert signal[[2, 0]].lengths.tolist() == [3, 1]
    assert signal[1:, :2].lengths.tolist() == [2, 2, 2]
    assert signal.copy().lengths.tolist() == [1, 2, 3, 6]
    assert signal[:, ::-1].lengths is None


@pytest.mark.parametrize("evidence", [(0, 1), (3, 2), (1.5, 2)])
def test_evidence_that_makes_no_sense_is_refused(evidence: tuple[float, float]) -> None:
    guard = StreamingGuard(0.05, at_least=evidence[0], of_last=evidence[1])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at_least is"):
        guard.fit(np.zeros((30, 5)))


def test_evidence_is_kept_in_files(tmp_path: Path) -> None:
    calm = np.random.default_rng(0).normal(size=(60, 12))
    guard = StreamingGuard(0.1, at_least=2, of_last=4).fit(calm[:30], calibration=calm[30:])
    guard.save(tmp_path / "guard")
    np.testing.assert_array_equal(StreamingGuard.load(tmp_path / "guard").step_scores(calm), guard.step_scores(calm))
    assert replace(Looks.of(8), window=None).means == 1
