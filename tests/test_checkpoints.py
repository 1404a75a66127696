"""Every weight of a loaded network came from the files, or the error says which did not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from checkpoints import Tensors, llama, set_config, set_tensors
from demur import InputError
from demur.models import load
from demur.models.weight_files import WRAPPERS, is_inside, wrapper_prefix

INDEX = "model.safetensors.index.json"


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value for name, value in tensors.items() if part not in name}


def wrong_shape(tensors: Tensors) -> Tensors:
    return {n: v[:9].clone() if n == "model.layers.1.mlp.up_proj.weight" else v for n, v in tensors.items()}


@pytest.mark.parametrize(
    ("config", "change", "said"),
    [
        ({}, without("layers.1."), "missing model.layers.1.input_layernorm.weight"),
        ({"tie_word_embeddings": False}, without("lm_head"), "missing lm_head.weight"),
        ({}, lambda t: {**t, "v_head.weight": torch.ones(3)}, "unexpected v_head.weight"),
        ({}, wrong_shape, "of another shape model.layers.1.mlp.up_proj.weight"),
        ({}, lambda t: {"zz": torch.ones(100_000)}, "but the weights hold 1 tensor"),
    ],
)
def test_tensors_that_do_not_fit_are_named(config: dict[str, Any], change: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        load(set_tensors(llama(tmp_path, **config), change), device="cpu")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"num_hidden_layers": 2}, "unexpected model.layers.2"),
        ({"num_hidden_layers": 4}, "missing model.layers.3"),
        ({"num_hidden_layers": None}, "missing model.layers.3"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers is 1000000, but the weights hold"),
        ({"num_hidden_layers": 10**30}, "which no network has"),
        ({"hidden_size": 10**8}, "of another shape model.embed_tokens.weight"),
        ({"num_local_experts": 10**9}, "no tensor of the weights has that many rows"),
        ({"num_labels": 10**9}, "num_labels"),
        ({"num_key_value_heads": None}, "of another shape model.layers.0.self_attn.k_proj"),
        ({"num_attention_heads": None, "head_dim": None}, "num_attention_heads is not there"),
        ({"hidden_size": "wide"}, "hidden_size"),
        ({"_attn_implementation": "owner/kernel"}, "names the kernel 'owner/kernel'"),
        ({"text_config": {"attn_implementation": "owner/kernel:x"}}, "names the kernel"),
        ({"transformers_weights": "other.safetensors"}, "transformers_weights names other weights"),
        ({"model_type": "unheard-of"}, "the checkpoint cannot be loaded"),
    ],
)
def test_a_config_that_its_weights_do_not_bear_out_is_refused(
    values: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said) as raised:
        load(set_config(llama(tmp_path), **values), device="cpu")
    assert len(str(raised.value).splitlines()) == 1


def test_kernels_of_the_machine_are_not_for_a_config_to_choose(tmp_path: Path) -> None:
    model = load(set_config(llama(tmp_path), _attn_implementation="flash_attention_2"), device="cpu")
    assert model.config._attn_implementation in ("sdpa", "eager")


@pytest.mark.parametrize("prefix", [*WRAPPERS, "model.", "module._orig_mod."])
def test_a_wrappers_prefix_on_every_tensor_is_taken_off_and_said(prefix: str, tmp_path: Path) -> None:
    before = load(llama(tmp_path), device="cpu")
    set_tensors(tmp_path, lambda tensors: {prefix + name: value for name, value in tensors.items()})
    with pytest.warns(UserWarning, match="was taken off"):
        model = load(tmp_path, device="cpu")
    assert all(
        torch.equal(value, before.network.state_dict()[name]) for name, value in model.network.state_dict().items()
    )
    assert model.fingerprint == before.fingerprint


def test_a_prefix_on_some_tensors_is_no_wrapper() -> None:
    assert wrapper_prefix(["module.a", "b"]) == wrapper_prefix(["model.a", "model.b"]) == wrapper_prefix([]) == ""


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_that_stands_beside_tied_embeddings_is_the_one_used(tied: bool, tmp_path: Path) -> None:
    llama(tmp_path, tie_word_embeddings=True)
    other = set_tensors(tmp_path, lambda t: {**t, "lm_head.weight": t["model.embed_tokens.weight"] + (not tied)})
    network = load(other, device="cpu").network
    assert torch.equal(network.lm_head.weight, load_file(tmp_path / "model.safetensors")["lm_head.weight"])


def test_buffers_of_old_files_are_left_out(tmp_path: Path) -> None:
    set_tensors(llama(tmp_path), lambda t: {**t, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert load(tmp_path, device="cpu").layer_count == 3


def split(folder: Path) -> tuple[Path, dict[str, Any]]:
    llama(folder, shard="20KB")
    return folder, json.loads((folder / INDEX).read_text())


def test_a_split_checkpoint_is_the_whole_one(tmp_path: Path) -> None:
    one, many = load(llama(tmp_path / "one"), device="cpu"), load(split(tmp_path / "many")[0], device="cpu")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    assert one.fingerprint == many.fingerprint


def test_a_split_checkpoint_is_read_whole_or_refused(tmp_path: Path) -> None:
    folder, index = split(tmp_path / "a")
    first = sorted(folder.glob("*.safetensors"))[0]

    def refused(said: str, **changes: Any) -> None:
        (folder / INDEX).write_text(json.dumps({**index, **changes}))
        with pytest.raises(InputError, match=said):
            load(folder, device="cpu")

    names = index["weight_map"]
    inner = next(name for name, file in names.items() if file == first.name)
    refused("outside the checkpoint's folder", weight_map={**names, inner: "../a/" + first.name})
    refused("outside the checkpoint's folder", weight_map={**names, inner: str(first)})
    refused("is no safetensors file", weight_map={**names, inner: "config.json"})
    refused("has no weight_map", weight_map={})
    refused("is in none of its files", weight_map={**names, "made.up": first.name})
    refused("belongs to a split checkpoint but", weight_map={n: f for n, f in names.items() if f != first.name})
    refused("which is not there", weight_map={**names, inner: "model-00099-of-00099.safetensors"})
    (folder / INDEX).write_text('{"weight_map": {')
    with pytest.raises(InputError, match="is not valid JSON"):
        load(folder, device="cpu")
    (folder / INDEX).unlink()
    with pytest.raises(InputError, match=r"holds no model\.safetensors"):
        load(folder, device="cpu")
    shutil.copy(first, folder / "model.safetensors")
    with pytest.raises(InputError, match="belongs to a split checkpoint but"):
        load(folder, device="cpu")
    (folder / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match="names other files"):
        load(folder, device="cpu")


def test_a_tensor_that_stands_in_two_files_is_refused(tmp_path: Path) -> None:
    folder, index = split(tmp_path)
    for file in sorted(set(index["weight_map"].values()))[:2]:
        tensors = load_file(folder / file)
        save_file({**tensors, "twice": torch.ones(1)}, folder / file, metadata={"format": "pt"})
    with pytest.raises(InputError, match="tensor twice stands in two files"):
        load(folder, device="cpu")


def test_paths_that_leave_a_folder_are_told() -> None:
    assert is_inside("model.safetensors") and is_inside("parts/a.safetensors")
    assert not any(map(is_inside, ["../a", "a/../../b", "/a", "..\\a", "C:/a", "C:\\a", ""]))


def test_links_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    llama(tmp_path / "blobs")
    (tmp_path / "snapshots" / "abc").mkdir(parents=True)
    for file in (tmp_path / "blobs").iterdir():
        (tmp_path / "snapshots" / "abc" / file.name).symlink_to(Path("..", "..", "blobs", file.name))
    assert load(tmp_path / "snapshots" / "abc", device="cpu").layer_count == 3


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth", "pytorch_model.bin.index.json"]
)
def test_pickled_weights_are_never_read(name: str, tmp_path: Path) -> None:
    llama(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / name)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="never unpickles; convert them"):
        load(tmp_path, device="cpu")


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "text",
    ["{", "[1]", '{"a": ' * 3000 + "1" + "}" * 3000, '{"a": ' + "9" * 5000 + "}", "\xff"],
)
def test_a_damaged_settings_file_is_named(name: str, text: str, tmp_path: Path) -> None:
    llama(tmp_path, tokenizer=True)
    (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=name.replace(".", r"\.")) as raised:
        load(tmp_path, device="cpu")
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("value", ["x", 1.5, True, [1, "x"], {"a": 1}])
def test_a_token_id_that_is_none_is_named(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=name.replace(".", r"\.") + ".*a token id is"):
        load(set_config(llama(tmp_path), name, eos_token_id=value), device="cpu")


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    file = llama(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="is damaged"):
        load(tmp_path, device="cpu")
    save_file({}, file)
    with pytest.raises(InputError, match="hold no tensor"):
        load(tmp_path, device="cpu")


def test_a_tokenizers_files_stay_in_its_folder(tmp_path: Path) -> None:
    set_config(llama(tmp_path, tokenizer=True), "tokenizer_config.json", fast_tokenizer_files=["../tokenizer.1.json"])
    with pytest.raises(InputError, match="fast_tokenizer_files names a file outside"):
        load(tmp_path, device="cpu")


def test_a_template_that_a_processor_saved_is_found(tmp_path: Path) -> None:
    llama(tmp_path, tokenizer=True)
    template = (tmp_path / "chat_template.jinja").read_text()
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    assert load(tmp_path, device="cpu").chat_format.kind == "template"
