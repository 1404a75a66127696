"""Nothing that comes with a checkpoint or a recording runs, and nothing asks, unless `trust_remote_code=True`."""

import builtins
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoints import llama, set_config, set_tensors
from demur import InputError, Recording, record
from demur.bundled import bundled_model
from demur.models import from_network, load

CODE = """
from pathlib import Path
Path("{place}").touch()
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

def generate(model, *inputs, **settings): ...
class Evil(PreTrainedTokenizerFast): ...
class EvilConfig(LlamaConfig): model_type = "evil"
class EvilModel(LlamaForCausalLM): config_class = EvilConfig
"""
TOKENIZER = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
MODEL = {"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel", "AutoModel": "evil.EvilModel"}


@pytest.fixture(autouse=True)
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: Any) -> str:
        raise AssertionError("asked")

    monkeypatch.setattr(builtins, "input", asked)


def has_run(folder: Path) -> bool:
    return any(folder.rglob("RAN"))


def armed(folder: Path) -> Path:
    """A folder with code that leaves a mark in it when it runs."""
    (folder / "custom_generate").mkdir(exist_ok=True)
    for file in (folder / "evil.py", folder / "custom_generate" / "generate.py"):
        file.write_text(CODE.replace("{place}", str(folder / "RAN")))
    return folder


@pytest.mark.parametrize("family", ["ar", "diffusion"])
@pytest.mark.parametrize("where", ["tokenizer", "config", "both"])
def test_no_code_of_a_checkpoint_runs(family: str, where: str, tmp_path: Path) -> None:
    folder = tmp_path / "evil"
    shutil.copytree(bundled_model(f"demur/tiny-{family}"), folder)
    armed(folder)
    if where != "config":
        set_config(folder, "tokenizer_config.json", **TOKENIZER)
    if where != "tokenizer":
        set_config(folder, auto_map=MODEL)
    try:
        record(load(folder, device="cpu", trust_remote_code=False), ["Tell me about tea."], steps=2)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    assert not has_run(tmp_path)


def test_a_model_type_with_code_of_its_own_says_how_it_would_run(tmp_path: Path) -> None:
    set_config(armed(llama(tmp_path)), model_type="evil", auto_map=MODEL)
    with pytest.raises(InputError, match="trust_remote_code"):
        load(tmp_path, device="cpu")
    assert not has_run(tmp_path)


def test_code_that_is_trusted_runs(tmp_path: Path) -> None:
    set_config(armed(llama(tmp_path, tokenizer=True)), model_type="evil", auto_map=MODEL)
    load(tmp_path, device="cpu", trust_remote_code=True)
    assert has_run(tmp_path)


@pytest.mark.parametrize("settings", [TOKENIZER, {}])
def test_no_code_of_a_recording_runs(settings: dict[str, Any], tmp_path: Path) -> None:
    model = load("demur/tiny-ar", device="cpu")
    record(model, ["Tell me about tea."], steps=2, out=tmp_path / "rec")
    folder = armed(tmp_path / "rec" / "tokenizer")
    set_config(folder, "tokenizer_config.json", **settings)
    set_config(folder, model_type="evil", auto_map={"AutoConfig": "evil.EvilConfig"})
    try:
        Recording(tmp_path / "rec").steps_text(0)
    except InputError as error:
        assert len(str(error).splitlines()) == 1
    assert not has_run(tmp_path)


@pytest.mark.parametrize(
    ("values", "sign"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "BertForMaskedLM"),
        ({"model_type": "modernbert", "architectures": ["ModernBertModel"]}, "model_type modernbert"),
        ({"model_type": "xlm-roberta", "architectures": None}, "model_type xlm-roberta"),
        ({"model_type": "sdar_vision", "architectures": ["SDARVisionForCausalLM"]}, "sdar"),
        ({"model_type": "llada9_moe"}, "llada9_moe"),
        ({"model_type": "Fast_dLLM_Llama"}, "Fast_dLLM"),
        ({"model_type": "a2d-gpt2"}, "a2d"),
        ({"model_type": "rnd1_vision"}, "rnd1"),
        ({"model_type": "wedlm_vision"}, "wedlm"),
        ({"architectures": ["WeDLMForCausalLM"]}, "WeDLM"),
        ({"auto_map": {"AutoModel": "modeling_dream.DreamModel"}}, "auto_map DreamModel"),
        ({"architectures": ["DiffuCoderModel"]}, "DiffuCoder"),
        ({"mask_token_id": 5}, "mask_token_id 5"),
        ({"text_config": {"mask_token_id": 5}}, "mask_token_id 5"),
        ({"bd_size": 32}, "bd_size 32"),
        ({"is_causal": False}, "sees both sides"),
        ({"use_bidirectional_attention": True}, "sees both sides"),
    ],
)
def test_what_fills_masks_is_never_taken_for_an_autoregressive_model(
    values: dict[str, Any], sign: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"is no autoregressive model.*{sign}.*family='autoregressive'"):
        load(set_config(llama(tmp_path), **values), device="cpu")


@pytest.mark.parametrize(
    "values",
    [
        {"model_type": "sdar", "architectures": ["SDARForCausalLM"]},
        {"model_type": "llada2_moe"},
        {"model_type": "Fast_dLLM_Qwen"},
        {"model_type": "a2d-qwen3"},
        {"model_type": "rnd1"},
        {"model_type": "wedlm"},
    ],
)
def test_weights_of_another_layout_are_never_taken_for_a_family_that_is_known(
    values: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"do not fit the config|is not there|supported is"):
        load(set_config(llama(tmp_path), **values), device="cpu")


def test_a_mask_token_counts_where_the_architecture_writes_no_text(tmp_path: Path) -> None:
    set_config(llama(tmp_path, tokenizer=True), "tokenizer_config.json", mask_token="<unk>")
    assert load(tmp_path, device="cpu").family == "autoregressive"
    with pytest.raises(InputError, match="architecture LlamaModel, with a mask token"):
        load(set_config(tmp_path, architectures=["LlamaModel"]), device="cpu")


def test_a_family_that_is_said_is_believed_where_it_can_be(tmp_path: Path) -> None:
    set_config(llama(tmp_path), mask_token_id=5)
    model = load(tmp_path, device="cpu", family="autoregressive")
    assert model.family == "autoregressive"
    with pytest.raises(InputError, match="no masked-diffusion format"):
        load(tmp_path, device="cpu", family="masked-diffusion")
    with pytest.raises(InputError, match="is a masked-diffusion model, not autoregressive"):
        load("demur/tiny-diffusion", device="cpu", family="autoregressive")
    with pytest.raises(InputError, match="is no autoregressive model"):
        from_network(model.network)
    assert from_network(model.network, family="autoregressive").family == "autoregressive"
    with pytest.raises(InputError, match="the mask token is 96"):
        from_network(model.network, family="masked-diffusion", mask_token_id=96)


def test_an_autoregressive_type_with_a_like_name_is_none_of_them() -> None:
    from demur.models.families import require_autoregressive

    for kind, name in (("diffllama", "DiffLlamaForCausalLM"), ("bart", "BartForCausalLM"), ("gpt2", "GPT2LMHeadModel")):
        require_autoregressive("m", {"model_type": kind, "architectures": [name]}, {}, asked=False)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", ""])
@pytest.mark.parametrize("change", ["none", "missing", "extra", "layers", "mask", "kernel", "eos"])
def test_diffusion_checkpoints_are_checked_alike(prefix: str, change: str, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(bundled_model("demur/tiny-diffusion"), folder)
    config = json.loads((folder / "config.json").read_text())
    layers = next(key for key in ("n_layers", "num_hidden_layers") if key in config)

    def changed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found = {prefix + name: value for name, value in tensors.items()}
        if change == "missing":
            found.pop(next(iter(found)))
        return {**found, **({prefix + "zz": torch.ones(1)} if change == "extra" else {})}

    set_tensors(folder, changed)
    values: dict[str, Any] = {
        "layers": {layers: 10**6},
        "mask": {"mask_token_id": 10**6},
        "kernel": {"attn_implementation": "owner/kernel"},
        "eos": {"eos_token_id": "x"},
    }.get(change, {})
    set_config(folder, **values)
    if change == "none":
        if prefix:
            with pytest.warns(UserWarning, match="was taken off"):
                model = load(folder, device="cpu")
        else:
            model = load(folder, device="cpu")
        assert model.fingerprint == load("demur/tiny-diffusion", device="cpu").fingerprint
        return
    with warnings.catch_warnings(), pytest.raises(InputError) as raised:
        warnings.simplefilter("ignore")  # of the prefix
        load(folder, device="cpu")
    said = {"missing": "missing", "extra": "zz", "layers": layers, "mask": "mask", "kernel": "kernel", "eos": "token"}
    assert said[change] in str(raised.value)
