"""LLaDA and LLaDA-1.5 checkpoints in transformers' Llama blocks, without remote code.

In: the config and folder of a checkpoint in the official layout. Out: a `LlamaForCausalLM` that attends in
both directions and gives the official model's logits. Reading tensors is left to `checkpoint`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from demur.errors import InputError
from demur.models.checkpoint import Built, DType, empty, fill, token_id, unsupported
from demur.models.formats.bidirectional import make_bidirectional
from demur.models.json_file import read_json_if_there

MASK, END_OF_SEQUENCE, END_OF_TURN = 126336, 126081, 126348
"""Token ids of the official checkpoints, used where the config names none."""

SUPPORTED: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "block_type": ("sequential", ("llama",)),
    "block_group_size": (1, (1,)),
    "activation_type": ("swiglu", ("silu",)),
    "layer_norm_type": ("default", ("rms",)),
    "layer_norm_with_affine": (True, (True,)),
    "attention_layer_norm": (False, (False,)),
    "rope": (False, (True,)),
    "alibi": (False, (False,)),
    "multi_query_attention": (None, (None, False)),
    "clip_qkv": (None, (None,)),
    "input_emb_norm": (False, (False,)),
    "scale_logits": (False, (False,)),
}
"""For each key: its value where the config leaves it out (the official code's default), and those covered."""

TOP = {"wte": "model.embed_tokens", "ln_f": "model.norm", "ff_out": "lm_head"}
BLOCK = {
    "attn_norm": "input_layernorm",
    "ff_norm": "post_attention_layernorm",
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "attn_out": "self_attn.o_proj",
    "ff_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "ff_out": "mlp.down_proj",
}


def build_llada(config: Mapping[str, Any], folder: Path, dtype: DType, device: torch.device) -> Built:
    """The network of a LLaDA checkpoint.

    Grouped-query attention, tied embeddings and linear biases are covered; anything that Llama's blocks
    cannot express is an `InputError` that names the key.
    """
    _require_supported(config, folder)
    tied = bool(config.get("weight_tying", True))
    network = empty(partial(_network, config, head_bias=_has_bias(config) and not tied), folder)
    fill(network, folder, llama_name, dtype, device, tied=tied)
    make_bidirectional(network)
    ends = (token_id(config, "eos_token_id", END_OF_SEQUENCE, folder), END_OF_TURN)
    return Built(
        network=network,
        family="masked-diffusion",
        eos_token_ids=[token for token in ends if token < network.config.vocab_size],
        mask_token_id=token_id(config, "mask_token_id", MASK, folder),
        sampler_defaults={"response_length": response_length(folder), "remasking": "low_confidence"},
    )


def llama_name(name: str) -> str | None:
    """The name that a tensor of the official layout has in `LlamaForCausalLM`, None if it has none."""
    block = re.fullmatch(r"model\.transformer\.blocks\.(\d+)\.(\w+)\.(weight|bias)", name)
    if block and block[2] in BLOCK:
        return f"model.layers.{block[1]}.{BLOCK[block[2]]}.{block[3]}"
    top = re.fullmatch(r"model\.transformer\.(\w+)\.(weight|bias)", name)
    return f"{TOP[top[1]]}.{top[2]}" if top and top[1] in TOP else None


def response_length(folder: Path) -> int:
    """Response positions: those that the checkpoint's generation_config.json asks for, or the official 128."""
    length = read_json_if_there(folder / "generation_config.json").get("max_new_tokens") or 128
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise InputError(f"{folder / 'generation_config.json'}: max_new_tokens is {length!r}, expected a whole number")
    return length


def _has_bias(config: Mapping[str, Any]) -> bool:
    return bool(config.get("include_bias", True))


def _require_supported(config: Mapping[str, Any], folder: Path) -> None:
    lacking = [key for key in ("d_model", "n_heads", "n_layers", "vocab_size") if key not in config]
    if lacking:
        raise InputError(
            f"{folder / 'config.json'}: model_type is 'llada' but {', '.join(lacking)} is not there; expected the "
            f"layout of GSAI-ML/LLaDA-8B (mixture-of-experts variants are not supported)"
        )
    for key, (default, values) in SUPPORTED.items():
        value = config.get(key, default)
        if value not in values:
            raise unsupported(folder, key, value, " or ".join(repr(one) for one in values))
    if config.get("include_qkv_bias") and not _has_bias(config):
        raise unsupported(folder, "include_qkv_bias", True, "False, or True together with include_bias")
    norm_bias = config.get("bias_for_layer_norm")
    if norm_bias or (norm_bias is None and _has_bias(config)):
        raise unsupported(folder, "bias_for_layer_norm", norm_bias, "False (None follows include_bias)")


def _network(config: Mapping[str, Any], *, head_bias: bool) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    width = int(config["d_model"])
    heads = int(config["n_heads"])
    vocabulary = int(config.get("embedding_size") or config["vocab_size"])
    settings = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=int(config.get("mlp_hidden_size") or config.get("mlp_ratio", 4) * width),
        num_hidden_layers=int(config["n_layers"]),
        num_attention_heads=heads,
        num_key_value_heads=int(config.get("n_kv_heads") or heads),
        max_position_embeddings=int(config.get("max_sequence_length", 1024)),
        rms_norm_eps=float(config.get("rms_norm_eps", 1e-5)),
        rope_parameters={"rope_type": "default", "rope_theta": float(config.get("rope_theta", 10000.0))},
        attention_bias=_has_bias(config),
        mlp_bias=_has_bias(config),
        tie_word_embeddings=bool(config.get("weight_tying", True)),
        hidden_act="silu",
        bos_token_id=None,
        eos_token_id=config.get("eos_token_id"),
        pad_token_id=config.get("pad_token_id"),
    )
    network = LlamaForCausalLM(settings)
    if head_bias:
        network.lm_head = torch.nn.Linear(width, vocabulary)
    return network
