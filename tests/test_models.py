"""Loading, chat formats, identity and layers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import toy
from demur import InputError
from demur.models import ChatFormat, from_network, load

FIXTURES = Path(__file__).parent / "fixtures" / "ar"


def test_a_folder_without_tokenizer_loads_and_says_why_text_cannot_be_used() -> None:
    model = load(FIXTURES / "llama_gqa", device="cpu")
    assert model.tokenizer is None
    assert model.eos_token_ids == [415]
    with pytest.raises(InputError, match="has no tokenizer files"):
        model.encode("hello")


def test_the_template_is_tokenized_once_with_one_beginning_of_sequence(toy_folder: Path) -> None:
    model = load(toy_folder)
    ids = model.encode("tell me about tea")
    assert ids.count(model.tokenizer.bos_token_id) == 1
    assert model.tokenizer.decode(ids).startswith("<bos> system You are a helpful assistant <end> user tell me")
    assert model.chat_format.kind == "template"
    assert not model.chat_format.folded


RAISES = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
)
DROPS = "{% for m in messages if m['role'] == 'user' %}user {{ m['content'] }} {% endfor %}"


@pytest.mark.parametrize("template", [RAISES, DROPS])
def test_a_template_without_a_system_role_gets_it_folded_into_the_user_turn(template: str) -> None:
    words = toy.tokenizer()
    words.chat_template = template
    chat = ChatFormat.of(words)
    assert chat.folded
    assert words.decode(chat.encode(words, "tell me")).strip() == "user You are a helpful assistant tell me"


def test_a_tokenizer_without_template_gets_a_plain_format() -> None:
    words = toy.tokenizer()
    words.chat_template = None
    chat = ChatFormat.of(words)
    assert chat.kind == "plain"
    assert words.decode(chat.encode(words, "tell me")) == "You are a helpful assistant <unk> tell me <unk>"


def test_the_fingerprint_follows_weights_special_tokens_and_chat_format_but_not_the_name(
    toy_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(toy_folder, tmp_path / "copy")
    original, copy = load(toy_folder), load(tmp_path / "copy")
    assert original.fingerprint == copy.fingerprint
    copy.eos_token_ids = [5]
    assert original.fingerprint != copy.fingerprint
    weights = load_file(tmp_path / "copy" / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
    assert original.fingerprint != load(tmp_path / "copy").fingerprint


def test_a_network_in_memory_is_known_by_its_weights(toy_folder: Path) -> None:
    model = load(toy_folder)
    before = from_network(model.network, model.tokenizer).fingerprint
    model.network.model.norm.weight.data[0] += 1
    assert from_network(model.network, model.tokenizer).fingerprint != before


@pytest.mark.parametrize("case", ["llama_gqa", "qwen2_gqa"])
def test_logits_and_states_are_those_of_the_reference(case: str) -> None:
    expected = load_file(FIXTURES / case / "forward.safetensors")
    model = load(FIXTURES / case, device="cpu")
    for name in ("in0", "in1", "in2"):
        ids = expected[f"{name}.input_ids"].long().unsqueeze(0)
        with torch.no_grad(), model.states([0, 1, 2, 3]) as states:
            logits = model.network(ids).logits[0]
        torch.testing.assert_close(logits, expected[f"{name}.logits"], atol=1e-4, rtol=0)
        torch.testing.assert_close(states[3][0], expected[f"{name}.final_hidden"], atol=5e-5, rtol=0)
        for layer in (0, 1, 2):
            torch.testing.assert_close(states[layer][0], expected[f"{name}.layer_inputs"][layer], atol=5e-5, rtol=0)


def test_layers_are_named_and_numbered_as_in_transformers(toy_folder: Path) -> None:
    model = load(toy_folder)
    assert [model.layer_index(layer) for layer in ("first", "middle", "last", 0, -1, "1")] == [1, 1, 2, 0, 2, 1]
    for wrong in ("top", 3, -4):
        with pytest.raises(InputError, match="is none of first, quarter, middle, last"):
            model.layer_index(wrong)


def test_no_hook_is_left_behind(toy_folder: Path) -> None:
    model = load(toy_folder)
    with pytest.raises(RuntimeError, match="stop"), model.states([0, 1, 2]):
        raise RuntimeError("stop")
    hooks = [m._forward_hooks or m._forward_pre_hooks for m in model.network.modules()]
    assert not any(hooks)


def test_faults_of_a_checkpoint_are_named(tmp_path: Path, toy_folder: Path) -> None:
    with pytest.raises(InputError, match=r"is no checkpoint folder; expected a config\.json"):
        load(tmp_path)
    with pytest.raises(InputError, match=r"no such folder or \.gguf file"):
        load(tmp_path / "nothing")
    with pytest.raises(InputError, match="the Hugging Face Hub gave no model"):
        load("nobody/no-such-model")
    (tmp_path / "model.txt").write_text("x")
    with pytest.raises(InputError, match=r"is a file but no \.gguf"):
        load(tmp_path / "model.txt")
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"holds 2 \.gguf files \(a\.gguf, b\.gguf\)"):
        load(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(toy_folder, broken)
    (broken / "config.json").write_text(json.dumps({"model_type": "no_such_type"}))
    with pytest.raises(InputError, match="the checkpoint cannot be loaded"):
        load(broken)
    with pytest.raises(InputError, match="dtype 'float33' is unknown"):
        load(toy_folder, dtype="float33")
    with pytest.raises(InputError, match="device 'gpu' is unknown"):
        load(toy_folder, device="gpu")
