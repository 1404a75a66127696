"""PEFT adapters: merged into their base and part of the identity, or refused."""

import builtins
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from checkpoints import llama, set_config
from demur import InputError
from demur.models import load

WEIGHTS = "adapter_model.safetensors"


def adapter(base: Path, folder: Path, **settings: Any) -> Path:
    """A random adapter of every query projection of the base."""
    torch.manual_seed(1)
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False, **settings)
    get_peft_model(network, config).save_pretrained(folder)
    return set_config(folder, "adapter_config.json", base_model_name_or_path=str(base))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return llama(tmp_path / "base", tokenizer=True)


def test_an_adapter_is_merged_into_its_base(base: Path, tmp_path: Path) -> None:
    folder = adapter(base, tmp_path / "adapter")
    plain, model = load(base, device="cpu"), load(folder, device="cpu")
    added = load_file(folder / WEIGHTS)
    name = "base_model.model.model.layers.1.self_attn.q_proj.lora_{}.weight"
    change = added[name.format("B")] @ added[name.format("A")] * 8 / 2  # lora_alpha / r
    projections = [one.network.model.layers[1].self_attn.q_proj.weight for one in (plain, model)]
    torch.testing.assert_close(projections[1] - projections[0], change, atol=1e-6, rtol=1e-4)
    assert model.fingerprint != plain.fingerprint
    assert model.tokenizer is not None  # the base's


def test_a_base_beside_an_adapter_is_not_loaded_without_it(base: Path, tmp_path: Path) -> None:
    beside = adapter(base, tmp_path / "beside")
    alone = load(beside, device="cpu").fingerprint
    for file in base.iterdir():
        shutil.copy(file, beside / file.name)
    assert load(beside, device="cpu").fingerprint == alone
    (beside / "model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="beside") as raised:
        load(beside, device="cpu")
    assert "/demur-" not in str(raised.value)


def test_an_adapter_needs_peft(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, find = adapter(base, tmp_path / "adapter"), builtins.__import__

    def missing(name: str, *rest: Any) -> Any:
        if name == "peft":
            raise ImportError(name)
        return find(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(InputError, match=r"holds an adapter, which needs .*demur\[peft\]"):
        load(folder, device="cpu")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_model_name_or_path": None}, "the adapter names no base model"),
        ({"base_model_name_or_path": "/nowhere"}, "is an adapter, and its base model cannot be loaded"),
        ({"megatron_config": {"a": 1}}, "the adapter sets megatron_config"),
        ({"layer_replication": [[0, 3], [1, 3]]}, "the adapter sets layer_replication"),
        ({"r": 10**9}, "r is 1000000000"),
        ({"r": 4}, "cannot be loaded"),
        ({"target_modules": ["nothing"]}, "cannot be loaded"),
        ({"target_modules": ["q_proj", "v_proj"]}, "does not fit its base model: missing"),
        ({"peft_type": "UNHEARD"}, "cannot be loaded"),
    ],
)
def test_an_adapter_that_cannot_be_applied_is_refused(
    settings: dict[str, Any], said: str, base: Path, tmp_path: Path
) -> None:
    folder = set_config(adapter(base, tmp_path / "adapter"), "adapter_config.json", **settings)
    with pytest.raises(InputError, match=said):
        load(folder, device="cpu")


def test_tensors_of_an_adapter_that_find_no_place_are_named(base: Path, tmp_path: Path) -> None:
    folder = adapter(base, tmp_path / "adapter")
    save_file({**load_file(folder / WEIGHTS), "zz": torch.ones(1)}, folder / WEIGHTS)
    with pytest.raises(InputError, match=r"adapter does not fit its base model: .*unexpected zz"):
        load(folder, device="cpu")


def test_pickled_and_half_adapters_are_refused(base: Path, tmp_path: Path) -> None:
    folder = adapter(base, tmp_path / "adapter")
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match="pickled adapters are never read"):
        load(folder, device="cpu")
    (folder / "adapter_config.json").unlink()
    with pytest.raises(InputError, match=r"weights of an adapter but no adapter_config\.json"):
        load(folder, device="cpu")


def test_an_adapter_of_an_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    inner = adapter(base, tmp_path / "inner")
    outer = set_config(adapter(base, tmp_path / "outer"), "adapter_config.json", base_model_name_or_path=str(inner))
    with pytest.raises(InputError, match="is an adapter of an adapter"):
        load(outer, device="cpu")
