"""Generation under a streaming guard: with demur's samplers, and within transformers' own `generate`."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import demur
import toy
from demur.defenses import GuardStopping, Reading, Watching, generate_guarded, watched_steps
from demur.errors import InputError, ProvenanceError
from demur.guards import DirectionGuard, StreamingGuard, states_of
from demur.models import Model, load
from demur.samplers import Autoregressive, BlockDiffusion, MaskedDiffusion, Sampler, UniformDiffusion
from demur.signal import Anchors
from test_uniform_diffusion import write_network

FIXTURES = Path(__file__).parent / "fixtures"
STEPS = 12
PLACES = (0.2, 0.5, 0.75, 1.0)


@dataclass
class Setting:
    """A model with anchors or a direction, a guard that stops about half, and fresh prompts of different lengths."""

    model: Model
    sampler: Sampler
    source: Anchors | DirectionGuard
    guard: StreamingGuard
    prompts: list[list[int]]

    @property
    def stops(self) -> np.ndarray:
        recording = self.record(self.prompts)
        if isinstance(self.source, Anchors):
            return self.guard.stops(self.source.signal(recording))
        stops = self.guard.stops(self.source.place_errors(self.source.states(recording)))
        return np.array([0, 3, 6, 9, 12])[stops]

    def record(self, prompts: list[list[int]]) -> demur.Recording:
        rows = [{"token_ids": ids} for ids in prompts]
        return demur.record(self.model, rows, self.sampler, layers=("middle", "last"), progress=False)


def some_prompts(count: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(5, 100, size=rng.integers(1, 20)).tolist() for _ in range(count)]


def setting_of(model: Model, sampler: Sampler, layer: int | None = None) -> Setting:
    given = Setting(model, sampler, None, None, some_prompts(22, 4))  # type: ignore[arg-type]
    sides = [given.record(some_prompts(8, seed)) for seed in (0, 1)]
    verdicts = {"harmless_refused": np.zeros(8, dtype=bool), "harmful_refused": np.ones(8, dtype=bool)}
    given.source = Anchors.fit(*sides, **verdicts)
    train, held_out = (given.source.signal(given.record(some_prompts(30, seed)), layer) for seed in (2, 3))
    given.guard = StreamingGuard(alpha=0.8, least_tail=1e-4).fit(train, calibration=held_out)
    return given


def directed(given: Setting, layers: tuple[int, ...]) -> Setting:
    """The same, watched along a direction at a few places."""
    train, held_out, harmful = (states_of(given.record(some_prompts(30, seed)), PLACES, layers) for seed in (2, 3, 1))
    direction = DirectionGuard(places=PLACES).fit(train, harmful=harmful)
    guard = StreamingGuard(alpha=0.8, side="high", least_tail=1e-4)
    guard.fit(direction.place_errors(train), calibration=direction.place_errors(held_out))
    return replace(given, source=direction, guard=guard)


@pytest.fixture(scope="module")
def llama() -> Setting:
    """Some rows end early: one of the tokens it likes is made its end-of-sequence."""
    model = load(FIXTURES / "ar" / "llama_gqa", device="cpu")
    model.eos_token_ids = []
    free = Setting(model, Autoregressive(STEPS), None, None, some_prompts(22, 4)).record(some_prompts(22, 4))  # type: ignore[arg-type]
    tokens = np.stack([free.steps_tokens(row).predicted[-1] for row in range(22)])
    values, counts = np.unique(tokens[:, 3:9], return_counts=True)
    model.eos_token_ids = [int(values[counts.argmax()])]
    model.network.generation_config.eos_token_id = model.eos_token_ids
    model.network.generation_config.pad_token_id = model.pad_token_id
    return setting_of(model, Autoregressive(STEPS))


@pytest.fixture(scope="module")
def llada() -> Setting:
    return setting_of(load(FIXTURES / "llada" / "llada_mha", device="cpu"), MaskedDiffusion(STEPS, 24))


@pytest.fixture(scope="module")
def sdar() -> Setting:
    """Block diffusion: four blocks at most, each with a share of the steps."""
    sampler = BlockDiffusion(STEPS, 12, block_length=4, schedule="dynamic", threshold=0.3)
    return setting_of(load(FIXTURES / "sdar" / "sdar_gqa", device="cpu"), sampler)


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Uniform diffusion: two canvases."""
    folder = write_network(tmp_path_factory.mktemp("diffusion-gemma"), vocabulary=104)
    return setting_of(load(folder, device="cpu"), UniformDiffusion(STEPS, 16))


@pytest.fixture(scope="module")
def llama_direction(llama: Setting) -> Setting:
    return directed(llama, (1, 3))


@pytest.fixture(scope="module")
def llada_direction(llada: Setting) -> Setting:
    return directed(llada, (max(llada.source.layers),))


def padded(prompts: list[list[int]]) -> dict[str, torch.Tensor]:
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize("name", ["llama", "llada", "sdar", "gemma", "llama_direction", "llada_direction"])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_stops_and_tokens_are_those_of_the_guard_on_a_recording(
    name: str, batch_size: int, request: pytest.FixtureRequest
) -> None:
    given: Setting = request.getfixturevalue(name)
    stops, recording = given.stops, given.record(given.prompts)
    assert 5 < (stops > 0).sum() < 28
    rows = [{"token_ids": ids} for ids in given.prompts]
    table = generate_guarded(given.model, rows, given.source, given.guard, given.sampler, batch_size=batch_size)
    np.testing.assert_array_equal(table["stopped_at"], stops)
    last = np.where(stops > 0, stops, STEPS)
    known = [int(recording.steps_tokens(row).is_committed[step - 1].sum()) for row, step in enumerate(last)]
    assert table["tokens"].tolist() == known


@pytest.mark.parametrize("name", ["llama", "llada"])
def test_looks_that_share_a_step_are_all_taken(name: str, request: pytest.FixtureRequest) -> None:
    given: Setting = request.getfixturevalue(name)
    short = type(given.sampler)(3) if name == "llama" else MaskedDiffusion(3, 24)
    given = replace(given, sampler=short)
    places = tuple((look + 1) / 8 for look in range(8))
    train, held_out, harmful, recording = (
        given.record(prompts) for prompts in (*(some_prompts(30, seed) for seed in (2, 3, 1)), given.prompts)
    )
    direction = DirectionGuard(places=places).fit(states_of(train, places), harmful=states_of(harmful, places))
    looks = [direction.place_errors(direction.states(one)) for one in (train, held_out, recording)]
    guard = StreamingGuard(alpha=0.6, side="high", least_tail=1e-4).fit(looks[0], calibration=looks[1])
    rows = [{"token_ids": ids} for ids in given.prompts]
    table = generate_guarded(given.model, rows, direction, guard, short)
    expected = direction.steps_of(guard.stops(looks[2]), 3)
    assert 2 < (expected > 0).sum() < 22
    np.testing.assert_array_equal(table["stopped_at"], expected)


@pytest.mark.parametrize("name", ["llama", "llada"])
def test_a_sampler_goes_on_when_nobody_waits_for_any_row(name: str, request: pytest.FixtureRequest) -> None:
    given: Setting = request.getfixturevalue(name)
    warm = Autoregressive(STEPS, temperature=1.0) if name == "llama" else MaskedDiffusion(STEPS, 24, temperature=1.0)
    steps = warm.steps(given.model, **padded(given.prompts[:3]))
    next(steps)
    later = [steps.send(torch.ones(3, dtype=torch.bool)), *steps]
    assert [step.index for step in later] == list(range(2, STEPS + 1))
    assert all(torch.isfinite(step.phi).all() for step in later)


def test_a_step_that_was_left_out_is_missed(llama_direction: Setting) -> None:
    watch = Watching(Reading.of(llama_direction.source, llama_direction.guard), llama_direction.guard, 2)
    phi = torch.zeros(2, 2, 64)
    watch.update(phi, 1)
    with pytest.raises(InputError, match="step 4 before step 3"):
        watch.update(phi, 4)


def test_the_text_is_what_was_committed_when_the_guard_fired(toy_model: Model) -> None:
    prompts = [row["prompt"] for row in toy.rows("test_attacks")[::4]]
    sides = [[row["prompt"] for row in toy.rows(kind)[::3]] for kind in ("anchors_harmless", "anchors_harmful")]
    harmless, harmful, recording = (demur.record(toy_model, rows, steps=STEPS) for rows in (*sides, prompts))
    anchors = Anchors.fit(harmless, harmful)
    guard = StreamingGuard(alpha=0.1).fit(anchors.signal(harmless), calibration=anchors.signal(harmless))
    table = generate_guarded(toy_model, prompts, anchors, guard)
    assert (table["stopped_at"] > 0).any()
    for row, (stop, text) in enumerate(zip(table["stopped_at"], table["text"], strict=True)):
        assert text == recording.steps_text(row)[(stop or STEPS) - 1].committed
    assert table["prompt"].tolist() == prompts


def test_a_batch_ends_with_its_last_stop_and_leaves_no_hooks(llama: Setting) -> None:
    row = int(np.flatnonzero((llama.stops > 0) & (llama.stops < STEPS - 2))[0])
    passes: list[int] = []
    handle = llama.model.decoder.register_forward_hook(lambda *_: passes.append(1))
    inputs = padded([llama.prompts[row]])
    reading = Reading.of(llama.source, llama.guard)
    seen = list(watched_steps(llama.sampler, llama.model, **inputs, reading=reading, guard=llama.guard))
    handle.remove()
    assert seen[-1][0].index == llama.stops[row] == len(seen) and len(passes) == len(seen) + 1
    assert not llama.model.decoder._forward_hooks


@pytest.mark.parametrize("name", ["llama", "llada", "gemma", "llama_direction", "llada_direction"])
def test_no_pass_is_spent_on_a_row_that_is_stopped(name: str, request: pytest.FixtureRequest) -> None:
    given: Setting = request.getfixturevalue(name)
    widths: list[int] = []
    before = len(given.prompts)
    handle = given.model.decoder.register_forward_hook(
        lambda module, args, kwargs, output: widths.append(len(output.last_hidden_state)), with_kwargs=True
    )
    with handle:
        for _, watch in watched_steps(
            given.sampler,
            given.model,
            **padded(given.prompts),
            reading=Reading.of(given.source, given.guard),
            guard=given.guard,
        ):
            going = int((watch.stopped_at == 0).sum())
            assert widths[-1] <= before
            before = going
    assert widths[-1] < len(given.prompts)


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("name", ["llama", "llama_direction"])
def test_generate_stops_the_rows_that_a_recording_says(
    name: str, use_cache: bool, request: pytest.FixtureRequest
) -> None:
    llama: Setting = request.getfixturevalue(name)
    stops, recording = llama.stops, llama.record(llama.prompts)
    lengths = recording.table["tokens"].to_numpy()
    # The state of a token comes with the next one, so nothing is known of a row's last.
    expected = np.where(stops < np.minimum(lengths, STEPS), stops, 0)
    assert (expected > 0).sum() > 3 and (lengths < STEPS).any() and (expected != stops).any()
    inputs = padded(llama.prompts)
    with GuardStopping(llama.model, llama.source, llama.guard) as stopping:
        output = llama.model.network.generate(
            **inputs, max_new_tokens=STEPS, do_sample=False, use_cache=use_cache, stopping_criteria=[stopping]
        )
    np.testing.assert_array_equal(stopping.stopped_at, expected)
    for row, stop in enumerate(expected):
        length = int(stop + 1 if stop else lengths[row])
        response = output[row, inputs["input_ids"].shape[1] :].tolist()
        assert response[:length] == recording.steps_tokens(row).predicted[-1][:length].tolist()
        assert set(response[length:]) <= {llama.model.pad_token_id}


def test_a_row_stops_alone_as_it_does_in_a_batch(llama: Setting) -> None:
    with GuardStopping(llama.model, llama.source, llama.guard) as together:
        llama.model.network.generate(
            **padded(llama.prompts), max_new_tokens=STEPS, do_sample=False, stopping_criteria=[together]
        )
    for row in range(0, len(llama.prompts), 3):
        with GuardStopping(llama.model, llama.source, llama.guard) as alone:
            output = llama.model.network.generate(
                torch.tensor([llama.prompts[row]]), max_new_tokens=STEPS, do_sample=False, stopping_criteria=[alone]
            )
        assert alone.stopped_at.tolist() == [together.stopped_at[row]]
        if alone.stopped_at[0]:
            assert output.shape[1] == len(llama.prompts[row]) + alone.stopped_at[0] + 1


def test_a_bare_network_and_another_layer_serve_too_and_tokens_beyond_the_guard_are_free(llama: Setting) -> None:
    middle = setting_of(llama.model, llama.sampler, layer=1)
    lengths = middle.record(middle.prompts).table["tokens"].to_numpy()
    stops = middle.guard.stops(middle.source.signal(middle.record(middle.prompts), 1))
    with GuardStopping(llama.model.network, middle.source, middle.guard, layer=1) as stopping:
        output = llama.model.network.generate(
            **padded(middle.prompts), max_new_tokens=STEPS + 5, do_sample=False, stopping_criteria=[stopping]
        )
    # With a token after the last step that step is judged too.
    going = lengths + ~np.isin(last_tokens(middle), middle.model.eos_token_ids) > stops
    np.testing.assert_array_equal(stopping.stopped_at, np.where(going, stops, 0))
    assert output.shape[1] == max(map(len, middle.prompts)) + STEPS + 5


def last_tokens(given: Setting) -> np.ndarray:
    recording = given.record(given.prompts)
    steps = [recording.steps_tokens(row) for row in range(len(given.prompts))]
    return np.array([one.predicted[-1][one.is_committed[-1]][-1] for one in steps])


def test_generate_is_refused_outside_the_block_twice_in_it_and_under_beam_search(llama: Setting) -> None:
    inputs, network = padded(llama.prompts[:3]), llama.model.network
    stopping = GuardStopping(llama.model, llama.source, llama.guard)
    with pytest.raises(InputError, match="inside its `with` block"):
        network.generate(**inputs, max_new_tokens=3, stopping_criteria=[stopping])
    with stopping:
        network.generate(**inputs, max_new_tokens=3, do_sample=False, stopping_criteria=[stopping])
        with pytest.raises(InputError, match="`with` block for each call of generate"):
            network.generate(**inputs, max_new_tokens=3, stopping_criteria=[stopping])
    with stopping, pytest.raises(InputError, match="cannot follow beam search"):
        network.generate(**inputs, max_new_tokens=3, num_beams=2, do_sample=False, stopping_criteria=[stopping])
    assert not llama.model.decoder._forward_hooks


def test_parts_that_do_not_belong_together_are_refused(llama: Setting, llada: Setting) -> None:
    rows = [{"token_ids": [5, 6, 7]}]
    with pytest.raises(ProvenanceError, match="the anchors and this generation do not belong together"):
        GuardStopping(replace(llama.model, content="another"), llama.source, llama.guard)
    with pytest.raises(ProvenanceError, match="the guard and the anchors' signal do not belong together: layers"):
        GuardStopping(llama.model, llama.source, llama.guard, layer=1)
    with pytest.raises(ProvenanceError, match="MaskedDiffusion with pooling paper against Autoregressive"):
        GuardStopping(llada.model, llada.source, llada.guard)
    with pytest.raises(ProvenanceError, match="sampler name"):
        generate_guarded(llama.model, rows, llada.source, llada.guard)
    with pytest.raises(ProvenanceError, match="sampler steps 12 against 5"):
        generate_guarded(llama.model, rows, llama.source, llama.guard, Autoregressive(5))
    longer = StreamingGuard(alpha=0.1).fit(np.random.default_rng(0).random((30, STEPS + 1)))
    with pytest.raises(InputError, match="fitted on 13 steps and the anchors have 12"):
        GuardStopping(llama.model, llama.source, longer)


def test_a_direction_that_does_not_belong_is_refused(llama_direction: Setting, llada_direction: Setting) -> None:
    model, direction, guard = llama_direction.model, llama_direction.source, llama_direction.guard
    rows = [{"token_ids": [5, 6, 7]}]
    with pytest.raises(ProvenanceError, match="the direction guard and this generation do not belong together"):
        GuardStopping(replace(model, content="another"), direction, guard)
    with pytest.raises(ProvenanceError, match="the direction guard and GuardStopping do not belong together"):
        GuardStopping(llada_direction.model, llada_direction.source, llada_direction.guard)
    with pytest.raises(ProvenanceError, match="steps 12 against 5"):
        generate_guarded(model, rows, direction, guard, Autoregressive(5))
    with pytest.raises(InputError, match="leave it out"):
        GuardStopping(model, direction, guard, layer=1)
    with pytest.raises(ProvenanceError, match="the guard and the direction guard do not belong together: layers"):
        GuardStopping(model, directed(llama_direction, (3,)).source, guard)
    unknown = DirectionGuard().fit(np.zeros((30, 2, 1, 4)), harmful=np.ones((3, 2, 1, 4)))
    with pytest.raises(InputError, match="does not know its layers and steps"):
        GuardStopping(model, unknown, guard)
    fewer = StreamingGuard(alpha=0.1).fit(np.random.default_rng(0).random((30, 3)))
    with pytest.raises(InputError, match="fitted on 3 numbers a generation and the direction guard looks at 4"):
        GuardStopping(model, direction, fewer)


def guarded(llama: Setting, **options: Any) -> GuardStopping:
    inputs = padded(llama.prompts[:4])
    with GuardStopping(llama.model, llama.source, llama.guard) as stopping:
        llama.model.network.generate(**inputs, max_new_tokens=STEPS, stopping_criteria=[stopping], **options)
    return stopping


def test_modes_of_generate_that_are_followed_stop_the_same_rows(llama: Setting) -> None:
    expected = guarded(llama, do_sample=False).stopped_at
    assert (expected > 0).any()
    for options in ({"cache_implementation": "static"}, {"prefill_chunk_size": 3}, {"use_cache": False}):
        np.testing.assert_array_equal(guarded(llama, do_sample=False, **options).stopped_at, expected, str(options))
    several = guarded(llama, do_sample=True, num_return_sequences=3, temperature=0.01)
    np.testing.assert_array_equal(several.stopped_at, expected.repeat(3))


@pytest.mark.parametrize("options", [{"prompt_lookup_num_tokens": 3}, {"guidance_scale": 1.5}, {"num_beams": 2}])
def test_modes_of_generate_that_cannot_be_followed_are_refused(llama: Setting, options: dict[str, Any]) -> None:
    inputs = padded([[7, 8, 9] * 6])  # prompt lookup finds something to propose
    with (
        GuardStopping(llama.model, llama.source, llama.guard) as stopping,
        pytest.raises(InputError, match=r"Guard|assisted"),
    ):
        llama.model.network.generate(
            **inputs, max_new_tokens=STEPS, do_sample=False, stopping_criteria=[stopping], **options
        )


def test_a_guard_that_was_never_asked_says_so(llama: Setting) -> None:
    inputs = padded(llama.prompts[:2])
    with pytest.raises(InputError, match="never asked"), GuardStopping(llama.model, llama.source, llama.guard):
        llama.model.network.generate(**inputs, max_new_tokens=2, do_sample=False)


def test_guards_of_several_threads_stop_what_each_stops_alone(llama: Setting) -> None:
    def stop(row: int) -> int:
        with GuardStopping(llama.model, llama.source, llama.guard) as stopping:
            ids = torch.tensor([llama.prompts[row]])
            llama.model.network.generate(ids, max_new_tokens=STEPS, do_sample=False, stopping_criteria=[stopping])
        return int(stopping.stopped_at[0])

    rows = list(range(8))
    alone = [stop(row) for row in rows]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(stop, rows * 5)) == alone * 5


def test_two_guards_of_one_thread_do_not_mix(llama: Setting) -> None:
    expected = [guarded(llama, do_sample=False).stopped_at for _ in range(2)]
    inputs = padded(llama.prompts[:4])
    with (
        GuardStopping(llama.model, llama.source, llama.guard) as one,
        GuardStopping(llama.model, llama.source, llama.guard) as two,
    ):
        for stopping in (one, two):
            llama.model.network.generate(**inputs, max_new_tokens=STEPS, do_sample=False, stopping_criteria=[stopping])
    np.testing.assert_array_equal([one.stopped_at, two.stopped_at], expected)
