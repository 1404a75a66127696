"""Looks: states of whole answers on a growing grid, in memory and files that grow with the looks."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import demur
from demur import InputError, Recording, record
from demur.looks import Looks, look_steps
from demur.models import Model, from_network, load
from demur.samplers import Autoregressive, MaskedDiffusion, Sampler

FIXTURES = Path(__file__).parent / "fixtures"
PROMPTS = [{"token_ids": ids} for ids in ([5, 9, 20], [7], [11, 30, 12, 8, 40], [3, 3, 19, 21])]


def tiny(layers: int = 2) -> Model:
    """A Llama of few layers that can go on for 4,096 tokens and has no end-of-sequence."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.3,
    )
    model = from_network(LlamaForCausalLM(config).eval())
    model.eos_token_ids = []
    return model


@pytest.fixture(scope="module")
def llama() -> Model:
    return tiny()


def test_the_grid_doubles_then_goes_by_sixty_four_and_ends_at_the_last_step() -> None:
    assert look_steps(1) == (0, 1)
    assert look_steps(32) == (0, 1, 2, 4, 8, 16, 32)
    assert look_steps(100, prompt=False) == (1, 2, 4, 8, 16, 32, 64, 100)
    assert look_steps(300) == (0, 1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 300)
    assert len(look_steps(2048)) == 39


def test_an_answer_has_the_looks_up_to_the_first_at_or_behind_its_end() -> None:
    looks = Looks.of(300)
    assert looks.made([1, 2, 3, 64, 65, 128, 257, 300]).tolist() == [2, 3, 4, 8, 9, 9, 12, 12]


def test_looks_are_the_means_of_one_clean_pass(llama: Model) -> None:
    recording = record(llama, PROMPTS, Autoregressive(150), layers=("middle", "last"), keep="looks", window=48)
    assert recording.looks == Looks((0, 1, 2, 4, 8, 16, 32, 64, 128, 150), 48)
    assert recording.look_states.shape == (4, 10, 2, 2, 16)
    for row, prompt in enumerate(PROMPTS):
        ids = torch.tensor([[*prompt["token_ids"], *recording.steps_tokens(row).predicted[-1].tolist()]])
        states = llama.network(ids, output_hidden_states=True).hidden_states
        start = len(prompt["token_ids"])
        for place, layer in enumerate((1, 2)):
            whole = states[layer][0].double().numpy(force=True)
            np.testing.assert_allclose(
                recording.look_states[row, 0, :, place], whole[[start - 1, start - 1]], atol=2e-5
            )
            for look, step in enumerate(recording.looks.steps[1:], start=1):
                means = [
                    whole[start : start + step].mean(0),
                    whole[max(start, start + step - 48) : start + step].mean(0),
                ]
                np.testing.assert_allclose(recording.look_states[row, look, :, place], means, atol=2e-5)


def test_the_looks_of_a_canvas_are_those_of_its_own_passes() -> None:
    model = load(FIXTURES / "llada" / "llada_mha", device="cpu")
    sampler = MaskedDiffusion(8, 32, block_length=16)
    every = record(model, PROMPTS, sampler, keep="phi")
    recording = record(model, PROMPTS, sampler, keep="looks", window=6, batch_size=2)
    assert recording.table["tokens"].tolist() == every.table["tokens"].tolist()
    assert recording.looks.steps == (0, 1, 2, 4, 8)
    np.testing.assert_allclose(recording.look_states[:, 1:, 0], every.phi[:, [0, 1, 3, 7]], atol=1e-5)
    ids = PROMPTS[2]["token_ids"]
    tokens = every.steps_tokens(2)
    since = np.where(tokens.is_committed.any(0), tokens.is_committed.argmax(0) + 1, 0)
    for look, step in enumerate(recording.looks.steps):
        before = tokens.is_committed[step - 2] if step > 1 else np.zeros(32, bool)
        canvas = np.where(before, tokens.predicted[-1], model.mask_token_id)
        (states,) = clean_pass(model, [*ids, *canvas.tolist()])
        known = np.flatnonzero((since > 0) & (since <= step))
        latest = sorted(known, key=lambda place: (since[place], place))[-6:]
        expected = states[len(ids) :][latest].mean(0) if step else states[len(ids) - 1]
        np.testing.assert_allclose(recording.look_states[2, look, 1, 0], expected, atol=2e-5)


def clean_pass(model: Model, ids: list[int]) -> list[np.ndarray]:
    with torch.no_grad(), model.states([model.layer_index("last")]) as states:
        model.network(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.int64))
    return [state[0].double().numpy(force=True) for state in states]


def test_an_answer_that_ends_keeps_its_states_and_has_no_further_looks(llama: Model) -> None:
    free = record(llama, PROMPTS, Autoregressive(40)).steps_tokens(0).predicted[-1]
    model = tiny()
    model.eos_token_ids = [int(free[11])]
    recording = record(model, PROMPTS, Autoregressive(40), keep="looks", window=4)
    ended = int(recording.table["tokens"][0])
    assert ended <= 12 and recording.looks_made[0] == recording.looks.made(ended)
    last = recording.looks_made[0] - 1
    np.testing.assert_array_equal(
        recording.look_states[0, last:], recording.look_states[0, last:][:1].repeat(len(recording.looks) - last, 0)
    )


@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_batch_changes_no_look(llama: Model, batch_size: int) -> None:
    sampler = Autoregressive(40)
    alone = record(llama, PROMPTS[2:3], sampler, keep="looks", window=8).look_states[0]
    among = record(llama, PROMPTS, sampler, keep="looks", window=8, batch_size=batch_size).look_states[2]
    np.testing.assert_allclose(among, alone, atol=1e-5)


def test_files_grow_with_the_looks_and_halve_in_half_precision(llama: Model, tmp_path: Path) -> None:
    sizes = {}
    for steps, precision in ((128, "float32"), (256, "float32"), (128, "float16")):
        out = tmp_path / f"{steps}-{precision}"
        record(llama, PROMPTS[:2], Autoregressive(steps), keep="looks", precision=precision, out=out)
        arrays = Recording(out)._shard(0)
        sizes[steps, precision] = arrays["states"].nbytes + arrays["window"].nbytes
    looks = {steps: len(look_steps(steps)) for steps in (128, 256)}
    assert sizes[256, "float32"] == 2 * 2 * looks[256] * 16 * 4
    assert sizes[256, "float32"] / sizes[128, "float32"] == looks[256] / looks[128] < 1.3
    assert sizes[128, "float16"] * 2 == sizes[128, "float32"]


def test_half_precision_rounds_by_at_most_one_part_in_2048(llama: Model) -> None:
    whole, half = (
        record(llama, PROMPTS[:2], Autoregressive(70), keep="looks", precision=one).look_states
        for one in ("float32", "float16")
    )
    assert half.dtype == np.float32
    assert np.abs(half - whole).max() > 0
    assert (np.abs(half - whole) <= np.maximum(np.abs(whole) * 2**-11, 2**-25)).all()


def test_states_too_large_for_half_precision_are_refused() -> None:
    model = tiny()
    with torch.no_grad():
        model.network.model.norm.weight.fill_(1e6)
    with pytest.raises(InputError, match="more than float16 holds; record with precision='float32'"):
        record(model, PROMPTS, Autoregressive(4), keep="looks", precision="float16")


def test_what_needs_every_step_is_refused_in_one_line(llama: Model, tmp_path: Path) -> None:
    recording = record(llama, PROMPTS, Autoregressive(8), keep="looks", out=tmp_path)
    for read in (lambda: recording.phi, lambda: next(recording.phi_batches()), lambda: recording.sigma):
        with pytest.raises(
            InputError, match=r"keeps the states of 5 looks, not (phi|sigma) at every step; record with"
        ):
            read()
    with pytest.raises(InputError, match="keeps phi, not the looks; record with keep='looks'"):
        _ = record(llama, PROMPTS, Autoregressive(8)).look_states
    assert recording.steps_tokens(0).is_committed.sum() == 36  # tokens of any step are there all the same


def test_a_window_as_long_as_the_answer_is_kept_once(llama: Model) -> None:
    recording = record(llama, PROMPTS, Autoregressive(64), keep="looks")
    assert recording.look_states.shape == (4, 8, 1, 1, 16)


def test_a_recording_of_looks_goes_on_where_it_stopped(
    llama: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"sampler": Autoregressive(20), "keep": "looks", "precision": "float16", "batch_size": 1}
    whole = record(llama, PROMPTS, **options).look_states
    steps, calls = Autoregressive.steps, []

    def failing(*arguments: object, **given: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return steps(*arguments, **given)

    failing.__signature__ = __import__("inspect").signature(steps)  # type: ignore[attr-defined]
    monkeypatch.setattr(Autoregressive, "steps", failing)
    with pytest.raises(KeyboardInterrupt):
        record(llama, PROMPTS, out=tmp_path, **options)
    np.testing.assert_array_equal(record(llama, PROMPTS, out=tmp_path, **options).look_states, whole)
    assert len(calls) == 5  # two batches were kept
    for change in ({"precision": "float32"}, {"window": 8}, {"keep": "phi", "precision": "float32"}):
        with pytest.raises(InputError, match=r"holds another recording.*differs in (looks|keep)"):
            record(llama, PROMPTS, out=tmp_path, **{**options, **change})


def test_a_sampler_that_knows_no_looks_is_refused(llama: Model) -> None:
    class Older(Sampler):
        family = "autoregressive"
        revises = False
        step_count = response_length = 4
        arguments = {"steps": 4}  # noqa: RUF012

        def steps(self, model, input_ids, attention_mask=None, *, layers=("last",), prefill=None):  # type: ignore[no-untyped-def]
            yield from ()

    with pytest.raises(InputError, match="Older: its `steps` takes no argument `looks`"):
        record(llama, PROMPTS, Older(), keep="looks")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"keep": "looks", "precision": "half"}, "precision is 'half'"),
        ({"keep": "phi", "precision": "float16"}, "precision='float16' is for keep='looks'"),
        ({"keep": "looks", "window": 0}, "window is 0"),
    ],
)
def test_what_makes_no_sense_is_refused(llama: Model, options: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        demur.record(llama, PROMPTS, Autoregressive(4), **options)
