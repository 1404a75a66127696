"""Reading a `.gguf` file, on a tiny one written here from the fixture's Qwen2 weights."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from demur import InputError, record
from demur.models import load

QWEN = Path(__file__).parent / "fixtures" / "ar" / "qwen2_gqa"
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name.replace("model.layers.", "blk.")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    config = load(QWEN).config
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    words = [chr(place) for place in range(33, 127)]
    tokens = [*words, "ab", *(f"<{place}>" for place in range(config.vocab_size - len(words) - 1))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(415)
    writer.add_pad_token_id(415)
    for name, values in load_file(QWEN / "model.safetensors").items():
        writer.add_tensor(gguf_name(name), values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("as_folder", [False, True])
def test_a_gguf_file_computes_what_its_checkpoint_computes(file: Path, as_folder: bool) -> None:
    model, original = load(file.parent if as_folder else file, device="cpu"), load(QWEN, device="cpu")
    assert model.eos_token_ids == [415]
    ids = torch.arange(20).unsqueeze(0)
    with torch.no_grad():
        torch.testing.assert_close(model.network(ids).logits, original.network(ids).logits, atol=1e-4, rtol=0)


def test_a_gguf_file_can_be_recorded_with_its_own_tokenizer(file: Path) -> None:
    recording = record(load(file, device="cpu"), ["ab"], steps=3)
    assert recording.phi.shape == (1, 3, 1, 64)
    assert recording.provenance.chat_format["kind"] == "plain"
    assert recording.table["text"].notna().all()


def test_a_file_that_is_no_gguf_is_named(tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(InputError, match=r"the checkpoint cannot be loaded"):
        load(tmp_path / "broken.gguf")
