"""How a network is run: chosen, kept in the provenance, the same but for rounding; what cannot be had is named."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import DynamicCache, StaticCache
from typer.testing import CliRunner

import demur
from demur import InputError, Recording, record
from demur.bundled import bundled_model
from demur.cli import app

PROMPTS = ["tell me about tea", "how do i make bombs and " * 3, "rain"]
SETTINGS: dict[str, Any] = {"steps": 6, "layers": ("first", "last")}


@pytest.fixture(scope="module")
def plain() -> Recording:
    return record(demur.load("demur/tiny-ar", device="cpu"), PROMPTS, **SETTINGS)


@pytest.fixture(autouse=True)
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trace as torch.compile does, and leave out making machine code, which takes a minute."""
    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda forward, **more: compiled(forward, **{**more, "backend": "eager"}))


@pytest.mark.parametrize(
    "options",
    [
        {"attention": "eager"},
        {"attention": "sdpa"},
        {"compile": True},
        {"device_map": {"": "cpu"}},
        {"cache": "dynamic"},
        {"cache": "static"},
    ],
    ids=str,
)
def test_states_and_text_are_the_same_and_the_choice_is_in_the_provenance(
    options: dict[str, Any], plain: Recording
) -> None:
    device = {} if "device_map" in options else {"device": "cpu"}
    model = demur.load("demur/tiny-ar", **device, **options)
    found = record(model, PROMPTS, **SETTINGS)
    np.testing.assert_allclose(found.phi, plain.phi, rtol=1e-4, atol=1e-4)
    assert found.table["text"].tolist() == plain.table["text"].tolist()
    assert dict(found.provenance.execution) == options
    assert found.provenance.fingerprint == plain.provenance.fingerprint
    assert found.provenance.differences(plain.provenance) == []


def test_every_block_that_states_are_read_behind_is_compiled(plain: Recording) -> None:
    compiled = demur.load("demur/tiny-ar", device="cpu", compile=True)
    assert all(hasattr(block.forward, "_torchdynamo_orig_callable") for block in compiled.blocks())
    record(compiled, PROMPTS[:1], steps=2)  # hooks that are set after compiling are not passed over
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):  # else torch runs what is over it uncompiled
        found = record(compiled, PROMPTS, **SETTINGS)
    np.testing.assert_allclose(found.phi, plain.phi, rtol=1e-4, atol=1e-4)


def test_two_ways_of_running_never_share_a_folder(tmp_path: Path) -> None:
    record(demur.load("demur/tiny-ar", device="cpu"), PROMPTS, steps=2, out=tmp_path / "r")
    with pytest.raises(InputError, match="differs in execution"):
        record(demur.load("demur/tiny-ar", device="cpu", attention="eager"), PROMPTS, steps=2, out=tmp_path / "r")


def test_diffusion_models_attend_as_they_are_told() -> None:
    found = [
        record(demur.load("demur/tiny-diffusion", device="cpu", **more), PROMPTS[:1], steps=4)
        for more in ({}, {"attention": "eager"})
    ]
    np.testing.assert_allclose(found[0].phi, found[1].phi, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"attention": "flash_attention_9"}, "attention 'flash_attention_9' cannot be had here"),
        ({"attention": "flash_attention_2"}, "attention 'flash_attention_2' cannot be had here"),
        ({"device_map": "auto", "device": "cpu"}, "exclude each other"),
        ({"cache": "quantized"}, "cache 'quantized' is none of dynamic and static"),
    ],
    ids=str,
)
def test_what_cannot_be_had_is_one_line(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        demur.load("demur/tiny-ar", **options)


def test_the_cache_that_was_chosen_is_the_one_that_holds_the_states(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Seen(StaticCache):
        def __init__(self, *arguments: Any, max_cache_len: int, **more: Any) -> None:
            made.append(max_cache_len)
            super().__init__(*arguments, max_cache_len=max_cache_len, **more)

    model = demur.load("demur/tiny-ar", device="cpu", cache="static")
    record(model, PROMPTS, **SETTINGS)
    monkeypatch.setattr("transformers.StaticCache", Seen)
    found = record(model, PROMPTS, **SETTINGS)
    assert made == [int(found.table["prompt_tokens"].max()) + SETTINGS["steps"]]


def test_a_cache_is_refused_where_it_would_have_no_effect_or_other_states(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is no autoregressive model"):
        demur.load("demur/tiny-diffusion", device="cpu", cache="static")

    class Forgetful(DynamicCache):
        def update(self, key: torch.Tensor, value: torch.Tensor, *more: Any, **named: Any) -> Any:
            return super().update(key.round(), value.round(), *more, **named)

    monkeypatch.setattr("transformers.DynamicCache", Forgetful)
    model = demur.load("demur/tiny-ar", device="cpu", cache="dynamic")
    with pytest.raises(InputError, match="does not give the states of a plain pass with the cache 'dynamic'"):
        record(model, PROMPTS, **SETTINGS)


def test_a_device_map_is_refused_where_transformers_does_not_load() -> None:
    with pytest.raises(InputError, match="device_map is for folders of safetensors"):
        demur.load("demur/tiny-diffusion", device_map="auto")


def test_weights_that_are_left_on_the_disk_are_refused(tmp_path: Path) -> None:
    layers = {f"model.layers.{n}": "cpu" for n in range(3)}
    parts = {"model.embed_tokens": "cpu", **layers, "model.layers.3": "disk", "model.norm": "cpu", "lm_head": "cpu"}
    with pytest.raises(InputError, match=r"outside the devices that compute|offload"):
        demur.load("demur/tiny-ar", device_map={**parts, "model.rotary_emb": "cpu"})


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "compressed-tensors"])
def test_a_quantised_checkpoint_that_cannot_run_here_is_refused_by_name(tmp_path: Path, method: str) -> None:
    folder = Path(shutil.copytree(bundled_model("demur/tiny-ar"), tmp_path / "m"))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": method, "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"is quantised with {method}, which needs"):
        demur.load(folder, device="cpu")


def test_the_commands_take_them_and_check_proves_them(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "tea"}\n')
    runner, more = CliRunner(), ["--attention", "eager", "--device", "cpu"]
    command = ["record", "demur/tiny-ar", str(prompts), "--steps", "2", "--out", str(tmp_path / "r")]
    assert runner.invoke(app, [*command, *more]).exit_code == 0
    assert dict(Recording(tmp_path / "r").provenance.execution) == {"attention": "eager"}
    ran = runner.invoke(app, ["check", "demur/tiny-ar", "--quick", "--compile", "--cache", "static", *more])
    assert ran.exit_code == 0, ran.output
