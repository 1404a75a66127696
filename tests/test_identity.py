"""One model has one fingerprint however it came; another model, and an edited one, has another."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import toy
from checkpoints import llama, set_config, set_tensors
from demur import InputError, record
from demur.models import from_network, load
from demur.models.fingerprint import network_hash, network_stamp, tokenizer_hash
from demur.provenance import Provenance
from demur.recording import folder as files

ROWS = [{"id": str(n), "token_ids": [5, 6, 7 + n]} for n in range(3)]


def test_one_model_has_one_fingerprint_however_it_came(tmp_path: Path) -> None:
    expected = load(llama(tmp_path / "one", tokenizer=True), device="cpu").fingerprint
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "one", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "one")
    assert from_network(network, tokenizer).fingerprint == expected
    assert load(llama(tmp_path / "many", tokenizer=True, shard="20KB"), device="cpu").fingerprint == expected
    tokenizer(["a", "a a"], padding=True)  # leaves its settings in the tokenizer
    assert from_network(network, tokenizer).fingerprint == expected
    set_config(tmp_path / "one", "generation_config.json", transformers_version="4.0.0", temperature=0.5)
    set_config(tmp_path / "one", transformers_version="4.0.0", my_note="x", architectures=None, torch_dtype="float32")
    assert load(tmp_path / "one", device="cpu").fingerprint == expected


def test_tied_weights_count_as_what_they_are(tmp_path: Path) -> None:
    tied = load(llama(tmp_path / "tied", tie_word_embeddings=True), device="cpu")
    shutil.copytree(tmp_path / "tied", tmp_path / "twice")
    set_tensors(tmp_path / "twice", lambda t: {**t, "lm_head.weight": t["model.embed_tokens.weight"].clone()})
    set_config(tmp_path / "twice", tie_word_embeddings=False)
    assert load(tmp_path / "twice", device="cpu").fingerprint == tied.fingerprint


@pytest.mark.parametrize(
    "values",
    [
        {"rms_norm_eps": 1e-3},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}},
        {"hidden_act": "gelu"},
        {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 4},
    ],
)
def test_what_changes_the_states_changes_the_fingerprint(values: dict[str, Any], tmp_path: Path) -> None:
    before = load(llama(tmp_path), device="cpu").fingerprint
    assert load(set_config(tmp_path, **values), device="cpu").fingerprint != before


def test_the_tokenizer_belongs_to_the_fingerprint(tmp_path: Path) -> None:
    before = load(llama(tmp_path, tokenizer=True), device="cpu").fingerprint
    words = json.loads((tmp_path / "tokenizer.json").read_text())
    first, second = list(words["model"]["vocab"])[10:12]
    vocabulary = words["model"]["vocab"]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (tmp_path / "tokenizer.json").write_text(json.dumps(words))
    assert load(tmp_path, device="cpu").fingerprint != before


class SlowTokenizer:
    """As those in Python are: a vocabulary and no backend."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    def __len__(self) -> int:
        return len(self.words)

    def get_vocab(self) -> dict[str, int]:
        return {word: place for place, word in enumerate(self.words)}


def test_a_tokenizer_without_backend_is_known_by_its_vocabulary() -> None:
    one, same, other = (SlowTokenizer(words) for words in (["a", "b"], ["a", "b"], ["b", "a"]))
    assert tokenizer_hash(one) == tokenizer_hash(same) != tokenizer_hash(other)
    one.words.append("c")
    assert tokenizer_hash(one) != tokenizer_hash(same)
    assert tokenizer_hash(None) == ""


def raise_one(weight: torch.Tensor) -> None:
    weight.data[0, 0] += 1e-3


def swap_rows(weight: torch.Tensor) -> None:
    weight.data[[0, 1]] = weight.data[[1, 0]]


def swap_columns(weight: torch.Tensor) -> None:
    weight.data[:, [0, 8]] = weight.data[:, [8, 0]]


@pytest.mark.parametrize("edit", [raise_one, swap_rows, swap_columns])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_edited_in_place_are_noticed(edit: Callable[[torch.Tensor], None], dtype: str, tmp_path: Path) -> None:
    model = load(llama(tmp_path), device="cpu", dtype=dtype)
    before, former = model.fingerprint, model.former_fingerprint
    assert former and model.fingerprint == before
    edit(model.network.model.layers[1].mlp.up_proj.weight if dtype == "float32" else model.network.lm_head.weight)
    if dtype == "bfloat16" and edit is raise_one:
        model.network.lm_head.weight.data[0, 0] += 1
    assert model.fingerprint != before
    assert model.former_fingerprint == ""


def test_what_was_recorded_before_an_edit_is_another_recording(tmp_path: Path) -> None:
    model = load(llama(tmp_path / "model"), device="cpu")
    record(model, ROWS, steps=2, out=tmp_path / "out")
    with torch.no_grad():
        model.network.model.norm.weight[0] += 1
    with pytest.raises(InputError, match="differs in fingerprint"):
        record(model, ROWS, steps=2, out=tmp_path / "out")


def test_small_and_odd_tensors_have_sums_too() -> None:
    network = torch.nn.Module()
    network.config = type("Config", (), {})()  # type: ignore[assignment]
    network.register_buffer("flag", torch.tensor(True))
    network.register_buffer("none", torch.zeros(0))
    network.register_buffer("bytes", torch.arange(13, dtype=torch.uint8))
    before = network_stamp(network), network_hash(network)
    network.bytes[12] += 1
    assert network_stamp(network) != before[0]
    assert network_hash(network) != before[1]


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.": "blk.",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attn_output",
    "self_attn.": "attn_",
    "mlp.": "ffn_",
    "_proj": "",
}


def write_gguf(folder: Path, file: Path, extra: dict[str, torch.Tensor] | None = None, **fields: Any) -> Path:
    """The Llama checkpoint of a folder as a `.gguf` file, in llama.cpp's order of rotated rows."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(fields.pop("blocks", config["num_hidden_layers"]))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_rope_freq_base(10000.0)
    for name, value in fields.items():
        add = writer.add_string if isinstance(value, str) else writer.add_uint16
        add(name.replace("__", "."), value)
    words = [chr(33 + place) for place in range(config["vocab_size"] - 1)]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([*words, "!!"])
    writer.add_token_types([1] * config["vocab_size"])
    writer.add_token_merges(["! !"])
    writer.add_eos_token_id(3)
    writer.add_pad_token_id(1)
    writer.add_bos_token_id(2)
    for name, value in {**load_file(folder / "model.safetensors"), **(extra or {})}.items():
        heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
        if "q_proj" in name or "k_proj" in name:
            value = value.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(value.shape)
        for theirs, ours in GGUF_NAMES.items():
            name = name.replace(theirs, ours)
        writer.add_tensor(name, value.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_a_gguf_file_has_the_fingerprint_of_its_weights(tmp_path: Path) -> None:
    folder = load(llama(tmp_path), device="cpu")
    packed = load(write_gguf(tmp_path, tmp_path / "a.gguf"), device="cpu")
    assert network_hash(packed.network) == network_hash(folder.network)
    again = from_network(packed.network, packed.tokenizer, eos_token_ids=packed.eos_token_ids)
    assert again.fingerprint == packed.fingerprint


@pytest.mark.parametrize(
    ("extra", "fields", "said"),
    [
        ({"model.layers.3.mlp.up_proj.weight": torch.ones(48, 32)}, {}, "blk.3.ffn_up.weight"),
        ({"unheard_of.weight": torch.ones(48, 32)}, {}, "unheard_of"),
        ({}, {"blocks": 2}, "blk.2"),
        ({}, {"blocks": 4}, "missing model.layers.3"),
        ({}, {"blocks": 10**6}, "block_count is 1000000"),
        ({}, {"split__count": 2}, "one of 2 files"),
        ({}, {"llama__rope__scaling__type": "yarn"}, "scales its positions by 'yarn'|cannot be loaded"),
        ({"rope_freqs.weight": torch.ones(3)}, {}, "fits no rotation"),
    ],
)
def test_a_gguf_file_is_read_whole_or_refused(extra: Any, fields: Any, said: str, tmp_path: Path) -> None:
    file = write_gguf(llama(tmp_path), tmp_path / "a.gguf", extra, **fields)
    with pytest.raises(InputError, match=said):
        load(file, device="cpu")


def test_a_part_of_a_split_gguf_file_is_refused(tmp_path: Path) -> None:
    file = write_gguf(llama(tmp_path), tmp_path / "a-00001-of-00002.gguf")
    with pytest.raises(InputError, match="one of 2 files; join them"):
        load(file, device="cpu")


def test_rotation_factors_of_a_gguf_file_are_followed(tmp_path: Path) -> None:
    plain = load(write_gguf(llama(tmp_path), tmp_path / "a.gguf"), device="cpu")
    factors = {"rope_freqs.weight": torch.tensor([1.0, 2.0, 4.0, 8.0])}
    turned = load(write_gguf(tmp_path, tmp_path / "b.gguf", factors), device="cpu")
    expected = plain.network.model.rotary_emb.inv_freq / factors["rope_freqs.weight"]
    torch.testing.assert_close(turned.network.model.rotary_emb.inv_freq, expected)
    assert turned.fingerprint != plain.fingerprint


def test_an_upgrade_is_a_warning_for_what_is_complete_and_refused_for_what_is_not(tmp_path: Path) -> None:
    model = load(llama(tmp_path / "model"), device="cpu")
    out = tmp_path / "out"
    record(model, ROWS, steps=2, out=out)
    manifest = files.read_manifest(out)
    manifest.pop("format")
    manifest["provenance"]["versions"]["torch"] = "1.0.0"
    files.write_manifest(out, manifest)
    with pytest.warns(UserWarning, match=r"was recorded by .*torch 1\.0\.0.*it is kept"):
        assert len(record(model, ROWS, steps=2, out=out)) == 3
    files.write_manifest(out, {**manifest, "complete": False})
    with pytest.raises(InputError, match="differs in versions"):
        record(model, ROWS, steps=2, out=out)


def test_what_demur_recorded_before_is_known_again(tmp_path: Path) -> None:
    model = load(llama(tmp_path / "model"), device="cpu")
    out = tmp_path / "out"
    recording = record(model, ROWS, steps=2, out=out)
    manifest = files.read_manifest(out)
    manifest.pop("format")
    manifest["provenance"]["fingerprint"] = manifest["provenance"].pop("former")
    manifest["key"] = Provenance.from_dict(manifest["provenance"]).keys()[1]
    files.write_manifest(out, manifest)
    for number in files.shard_numbers(out):  # shards that knew the former key
        arrays, table = files.read_shard_arrays(out, number), files.read_shard_table(out, number)
        files.write_shard(out, number, arrays, table, manifest["key"])
    files.write_table(out, files.read_shard_table(out, 0), key=manifest["key"])
    again = record(model, ROWS, steps=2, out=out)
    assert again.provenance.fingerprint == model.former_fingerprint
    assert again.provenance.differences(recording.provenance) == []
    manifest["provenance"]["fingerprint"] = "e" * 64
    files.write_manifest(out, manifest)
    with pytest.raises(InputError, match="differs in fingerprint"):
        record(model, ROWS, steps=2, out=out)


def test_the_end_tokens_of_all_settings_count_together(tmp_path: Path) -> None:
    folder = llama(tmp_path, tokenizer=True, eos_token_id=4)
    set_config(folder, "generation_config.json", eos_token_id=[5, 96, -1])
    end = toy.tokenizer().eos_token_id
    assert sorted(load(folder, device="cpu").eos_token_ids) == sorted({4, 5, end})


def test_the_end_of_a_turn_in_the_template_ends_an_answer(tmp_path: Path) -> None:
    folder = llama(tmp_path, tokenizer=True)
    template = "{% for m in messages %}{{ m['content'] }} <bos>{% endfor %}"
    (folder / "chat_template.jinja").write_text(template)
    assert toy.tokenizer().bos_token_id in load(folder, device="cpu").eos_token_ids
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}")
    words = toy.tokenizer()
    words.chat_template = "{{ raise_exception('no') }}"
    from demur.models.end_tokens import turn_end

    assert turn_end(words) is None
