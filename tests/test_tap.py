"""The tap: requests at different steps, told apart by their ids, get the verdicts of a recording, step for step."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

import demur
from demur.defenses import GuardStopping, Reading, Tap
from demur.errors import InputError
from demur.guards import DirectionGuard, StreamingGuard, states_of
from demur.models import Model, load
from demur.samplers import Autoregressive, MaskedDiffusion, Sampler
from demur.signal import Anchors

FIXTURES = Path(__file__).parent / "fixtures"
STEPS = 12
PLACES = (0.2, 0.5, 0.75, 1.0)


def some_prompts(count: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(5, 100, size=rng.integers(1, 20)).tolist() for _ in range(count)]


@lru_cache
def recorded(name: str, sampler: type[Sampler]) -> tuple[Model, list[demur.Recording]]:
    model = load(FIXTURES / name, device="cpu")
    used = sampler(STEPS, 24) if sampler is MaskedDiffusion else sampler(STEPS)
    sets = [[{"token_ids": ids} for ids in some_prompts(*one)] for one in ((16, 2), (16, 3), (16, 1), (24, 4))]
    return model, [demur.record(model, rows, used, layers=("middle", "last"), progress=False) for rows in sets]


class Setting:
    """A model, 24 recorded generations, and a guard on anchors or on a direction that stops about half of them."""

    def __init__(self, name: str, sampler: type[Sampler], directed: bool) -> None:
        self.prompts = some_prompts(24, 4)
        self.model, (train, held_out, harmful, self.recording) = recorded(name, sampler)
        if directed:
            self.source: Anchors | DirectionGuard = DirectionGuard(places=PLACES)
            self.source.fit(states_of(train, PLACES), harmful=states_of(harmful, PLACES))
            sets = [self.source.place_errors(self.source.states(one)) for one in (train, held_out, self.recording)]
        else:
            said = {"harmless_refused": np.zeros(16, dtype=bool), "harmful_refused": np.ones(16, dtype=bool)}
            self.source = Anchors.fit(train, harmful, **said)
            sets = [self.source.signal(one) for one in (train, held_out, self.recording)]
        self.guard = StreamingGuard(alpha=0.5, side="high" if directed else "both", least_tail=1e-4)
        self.guard.fit(sets[0], calibration=sets[1])
        self.reading = Reading.of(self.source, self.guard)
        self.scores, stops = self.guard.step_scores(sets[2]), self.guard.stops(sets[2])
        self.stops = np.array([0, *self.reading.steps])[stops]

    def token_states(self) -> list[torch.Tensor]:
        """The states of each response's tokens from one clean pass, ``[tokens, layers, width]``."""
        found = []
        for row, prompt in enumerate(self.prompts):
            last = self.recording.steps_tokens(row)
            tokens = last.predicted[-1][last.is_committed[-1]].tolist()
            with torch.no_grad(), self.model.states(self.reading.layers) as states:
                self.model.network(torch.tensor([[*prompt, *tokens]]))
            found.append(torch.stack([one[0, len(prompt) :] for one in states], dim=1))
        return found


@pytest.fixture(scope="module", params=[False, True], ids=["anchors", "direction"])
def llama(request: pytest.FixtureRequest) -> Setting:
    return Setting("ar/llama_gqa", Autoregressive, request.param)


@pytest.fixture(scope="module", params=[False, True], ids=["anchors", "direction"])
def llada(request: pytest.FixtureRequest) -> Setting:
    return Setting("llada/llada_mha", MaskedDiffusion, request.param)


@pytest.mark.parametrize("seed", range(3))
def test_tokens_of_requests_that_come_and_go_are_judged_as_on_the_recording(llama: Setting, seed: int) -> None:
    assert 3 < (llama.stops > 0).sum() < 21
    states, rng = llama.token_states(), np.random.default_rng(seed)
    tap, waiting, at = Tap(llama.reading, llama.guard, 2), list(range(24)), {}
    found = np.zeros(24, dtype=int)
    while waiting or at:
        while waiting and len(at) < 7:
            at[waiting.pop(0)] = 0
            tap.open(f"request {next(reversed(at))}")
        rows = [row for row in at if rng.random() < 0.7]
        rng.shuffle(rows)
        if not rows:
            continue
        stopped = tap.take([f"request {row}" for row in rows], torch.stack([states[row][at[row]] for row in rows]))
        for row, stop in zip(rows, stopped, strict=True):
            at[row] += 1
            verdict = tap.verdict(f"request {row}")
            assert verdict.step == at[row] and verdict.stopped_at == (at[row] if stop else 0)
            if verdict.looks:
                assert verdict.score == pytest.approx(llama.scores[row, verdict.looks - 1], rel=1e-3, abs=1e-3)
            if stop or at[row] == len(states[row]):
                found[row] = tap.close(f"request {row}").stopped_at
                del at[row]
    np.testing.assert_array_equal(found, llama.stops)
    assert tap.requests == []


def test_pooled_states_at_different_steps_are_judged_as_on_the_recording(llada: Setting) -> None:
    assert 3 < (llada.stops > 0).sum() < 21
    held = [llada.recording.provenance.layers.index(layer) for layer in llada.reading.layers]
    phi = torch.from_numpy(np.asarray(llada.recording.phi)[:, :, held])
    tap, found = Tap(llada.reading, llada.guard), np.zeros(24, dtype=int)
    for tick in range(STEPS + 24):
        rows = [row for row in range(24) if 0 <= tick - row < STEPS]
        for row in rows:
            if tick == row:
                tap.open(row)
        tap.judge(rows, torch.stack([phi[row, tick - row] for row in rows]) if rows else phi[:0, 0])
        for row in rows:
            if tick - row == STEPS - 1:
                found[row] = tap.close(row).stopped_at
    np.testing.assert_array_equal(found, llada.stops)


def test_ids_are_never_mixed_and_shapes_are_those_of_the_layers(llama: Setting) -> None:
    tap, width = Tap(llama.reading, llama.guard, 1), llama.model.width
    one = torch.zeros(1, len(tap.layers), width)
    tap.open("a")
    with pytest.raises(InputError, match="'a' is followed already"):
        tap.open("a")
    with pytest.raises(InputError, match="'b' is not followed"):
        tap.take(["b"], one)
    with pytest.raises(InputError, match="name one twice"):
        tap.take(["a", "a"], one.repeat(2, 1, 1))
    with pytest.raises(InputError, match="states of shape"):
        tap.take(["a"], one[:, :0])
    assert tap.verdict("a").step == 0 and np.isnan(tap.verdict("a").score)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_states_of_any_dtype_are_judged_as_in_float32(llama: Setting, llada: Setting, dtype: torch.dtype) -> None:
    for setting in (llama, llada):
        states = torch.randn(4, 6, len(setting.reading.layers), setting.model.width).to(dtype)
        taps = [Tap(setting.reading, setting.guard, 4) for _ in range(2)]
        for tap, kept in zip(taps, (states, states.float()), strict=True):
            for request in range(4):
                tap.open(request)
            for step in range(6):
                (tap.take if setting is llama else tap.judge)(range(4), kept[:, step])
        one, other = ([tap.verdict(request) for request in range(4)] for tap in taps)
        assert one == other and any(verdict.looks for verdict in one)


def test_states_that_are_not_finite_stop_one_request_and_are_forgotten_with_it(llama: Setting) -> None:
    tap, lost = Tap(llama.reading, llama.guard, 2), llama.token_states()[0][:1] * torch.nan
    calm = int(np.flatnonzero(llama.stops == 0)[0])
    for name in ("lost", "calm"):
        tap.open(name)
    states = llama.token_states()[calm]
    with pytest.warns(UserWarning, match="not finite"):
        for state in states:
            tap.take(["lost", "calm"], torch.cat([lost, state[None]]))
    assert tap.close("lost").stopped_at == tap.watching.reading.steps[0] and tap.close("calm").stopped_at == 0
    tap.open("next")
    for state in states:
        tap.take(["next"], state[None])
    assert tap.close("next").stopped_at == 0


def test_one_stopping_criterion_for_the_calls_of_two_threads_is_refused(llama: Setting) -> None:
    options = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0}
    ids = torch.tensor([llama.prompts[0]])
    with GuardStopping(llama.model, llama.source, llama.guard) as stopping, ThreadPoolExecutor(1) as other:
        llama.model.network.generate(ids, stopping_criteria=[stopping], **options)
        second = other.submit(llama.model.network.generate, ids, stopping_criteria=[stopping], **options)
        with pytest.raises(InputError, match="follows a call of generate in another thread"):
            second.result()
