"""Tiny random checkpoints that tests write, damage and load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import toy

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
Tensors = dict[str, torch.Tensor]
SIZES = {"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}


def llama(folder: Path, *, tokenizer: bool = False, shard: str = "5GB", **config: Any) -> Path:
    """A random Llama checkpoint, the same one every time; its end of sequence is token 3."""
    torch.manual_seed(0)
    ids = {"pad_token_id": 1, "bos_token_id": 2, "eos_token_id": 3}
    network = LlamaForCausalLM(LlamaConfig(**{**SIZES, **HEADS, **ids, **config}))
    network.save_pretrained(folder, max_shard_size=shard)
    if tokenizer:
        toy.tokenizer().save_pretrained(folder)
    return folder


def set_config(folder: Path, file: str = "config.json", **values: Any) -> Path:
    """Change keys of a JSON file; None removes one."""
    path = folder / file
    found = {**(json.loads(path.read_text()) if path.is_file() else {}), **values}
    path.write_text(json.dumps({name: value for name, value in found.items() if value is not None}))
    return folder


def set_tensors(folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return folder


def gguf_name(name: str) -> str:
    for theirs, ours in NAMES.items():
        name = name.replace(theirs, ours)
    return name.replace("model.layers.", "blk.")


def qwen_gguf(path: Path) -> Path:
    """The fixture's Qwen2 weights as a GGUF file with a tokenizer of its own; its end of sequence is token 415."""
    config = json.loads((QWEN / "config.json").read_text())
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    words = [chr(place) for place in range(33, 127)]
    tokens = [*words, "ab", *(f"<{place}>" for place in range(config["vocab_size"] - len(words) - 1))]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.NORMAL] * len(tokens))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(415)
    writer.add_pad_token_id(415)
    for name, values in load_arrays(QWEN / "model.safetensors").items():
        writer.add_tensor(gguf_name(name), values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
