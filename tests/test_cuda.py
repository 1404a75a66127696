"""On a CUDA device: what the processor gives, live stops as recorded, a server, layers on two devices, full memory."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import torch

import demur
from demur import InputError
from demur.defenses import GuardStopping, generate_guarded
from demur.models import Model
from demur.recording.generate import pad_left
from serving import PATIENCE, SAMPLERS, app_of, chat, running, served, served_on_looks, toy_prompts

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
SETTINGS: dict[str, dict[str, Any]] = {**SAMPLERS, "demur/tiny-block": {"steps": 8, "response_length": 32}}
FAMILIES = list(SETTINGS)
PROMPTS = [*toy_prompts("test_attacks", 6), *toy_prompts("test_harmless", 6), "tea"]


def recording(model: Model, **more: Any) -> demur.Recording:
    sampler = model.default_sampler(**SETTINGS[model.name])
    return demur.record(
        model, PROMPTS, sampler, **{"layers": ("first", "middle", "last"), "batch_size": 8, "progress": False, **more}
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_check_is_green(name: str, dtype: str) -> None:
    found = demur.check(name, minutes=0.2, device="cuda", dtype=dtype)
    assert found.ok, found
    assert {row.outcome for row in found.rows if row.name in ("weights", "states")} == {"ok"}, found
    memory = next(row for row in found.rows if row.name == "memory")
    assert "on the device" in memory.measured and memory.numbers["peak"] > memory.numbers["weights"] > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_recordings_are_those_of_the_processor_and_of_single_prompts(name: str) -> None:
    cuda = demur.load(name, device="cuda", dtype="float32")
    found = recording(cuda)
    np.testing.assert_array_equal(found.phi, recording(cuda).phi)
    for other in (recording(demur.load(name, device="cpu")), recording(cuda, batch_size=1)):
        same = [same_steps(found, other, row) for row in range(len(PROMPTS))]
        assert sum(same) >= len(PROMPTS) - 2  # where two tokens are almost equally likely, either may come first
        np.testing.assert_allclose(found.phi[same], other.phi[same], rtol=1e-3, atol=1e-3)


def same_steps(one: demur.Recording, other: demur.Recording, row: int) -> bool:
    """Whether both commit the same tokens at the same steps."""
    mine, theirs = one.steps_tokens(row), other.steps_tokens(row)
    same = np.array_equal(mine.is_committed, theirs.is_committed)
    return same and np.array_equal(mine.predicted[mine.is_committed], theirs.predicted[theirs.is_committed])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", list(SAMPLERS))
def test_guards_stop_live_where_they_stop_on_the_recording(name: str, dtype: str) -> None:
    one = served(name, device="cuda", dtype=dtype)
    assert 0 < np.count_nonzero(one.stops) < len(one.stops)
    watched, sampler = one.watched[0], one.model.default_sampler(**SAMPLERS[name])
    live = generate_guarded(one.model, one.prompts, watched.source, watched.guard, sampler, batch_size=32)
    np.testing.assert_array_equal(live["stopped_at"], one.stops)
    if dtype == "float32":
        np.testing.assert_array_equal(one.stops, served(name).stops)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_a_server_stops_what_the_recording_stops_with_many_at_once(name: str) -> None:
    one = served(name, device="cuda", dtype="float32")

    def ask(row: int) -> tuple[str, str]:
        answer = httpx2.post(f"{address}/v1/chat/completions", json=chat(one.prompts[row], name), timeout=PATIENCE)
        choice = answer.json()["choices"][0]
        return choice["finish_reason"], choice["message"]["content"] or ""

    rows = [number % len(one.prompts) for number in range(64)]
    with running(app_of(one)) as address, ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, rows))
    assert [reason == "content_filter" for reason, _ in found] == [bool(one.stops[row]) for row in rows]
    for row, (reason, text) in zip(rows, found, strict=True):
        assert reason != "stop" or text == one.recording.steps_text(row)[-1].committed


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}, {"prefill_chunk_size": 16}], ids=str)
def test_transformers_generate_stops_what_the_recording_stops(options: dict[str, Any]) -> None:
    """With a static cache, `generate` compiles the network and captures CUDA graphs."""
    one = served("demur/tiny-ar", device="cuda", dtype="float32")
    watched, steps = one.watched[0], one.model.default_sampler(**SAMPLERS[one.model.name]).step_count
    rows = [one.model.encode(prompt) for prompt in one.prompts]
    ids, mask = (part.to("cuda") for part in pad_left([np.array(row) for row in rows], one.model.pad_token_id))
    with GuardStopping(one.model, watched.source, watched.guard) as stopping:
        one.model.network.generate(
            ids, attention_mask=mask, max_new_tokens=steps + 1, do_sample=False, stopping_criteria=[stopping], **options
        )
    np.testing.assert_array_equal(stopping.stopped_at, one.stops)


def test_a_server_in_half_precision_judges_prompts_and_whole_answers() -> None:
    one = served_on_looks(device="cuda", dtype="bfloat16")

    def ask(prompt: str) -> httpx2.Response:
        return httpx2.post(f"{address}/v1/chat/completions", json=chat(prompt, one.model.name), timeout=PATIENCE)

    rows = [*toy_prompts("anchors_harmful", 8), *toy_prompts("test_harmless", 8)]
    with running(app_of(one, slots=8)) as address, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, rows))
    assert {answer.status_code for answer in answers} <= {200, 400}
    assert len([answer for answer in answers[8:] if answer.status_code == 200]) > 4


def test_a_device_map_is_followed_and_weights_left_on_the_processor_are_refused() -> None:
    expected = recording(demur.load("demur/tiny-ar", device="cuda", dtype="float32"))
    found = recording(demur.load("demur/tiny-ar", device_map={"": 0}, dtype="float32"))
    np.testing.assert_array_equal(found.phi, expected.phi)
    partly = dict.fromkeys(("model.embed_tokens", "model.layers", "model.rotary_emb", "lm_head"), 0)
    partly["model.norm"] = "cpu"
    with pytest.raises(InputError, match="outside the devices that compute"):
        demur.load("demur/tiny-ar", device_map=partly, dtype="float32")


@pytest.mark.parametrize("options", [{"attention": "eager"}, {"cache": "static"}, {"compile": True}], ids=str)
def test_other_ways_to_run_give_the_same(options: dict[str, Any]) -> None:
    plain = recording(demur.load("demur/tiny-ar", device="cuda", dtype="float32"))
    found = recording(demur.load("demur/tiny-ar", device="cuda", dtype="float32", **options))
    assert found.table["text"].tolist() == plain.table["text"].tolist()
    np.testing.assert_allclose(found.phi, plain.phi, rtol=1e-3, atol=1e-3)


def test_a_batch_that_the_device_cannot_hold_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    model = demur.load("demur/tiny-diffusion", device="cuda", dtype="float32")
    sampler = model.default_sampler(**SAMPLERS[model.name])
    few = demur.record(model, PROMPTS[:2], sampler, out=tmp_path / "r", progress=False)
    total = torch.cuda.get_device_properties(model.device).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (1 << 24)) / total)
    try:
        with pytest.raises(InputError, match=r"no memory on cuda:\d for a batch of .* give batch_size"):
            demur.record(model, PROMPTS * 200, sampler, batch_size=2048, progress=False)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    again = demur.record(model, PROMPTS[:2], sampler, out=tmp_path / "r", progress=False)
    np.testing.assert_array_equal(again.phi, few.phi)
