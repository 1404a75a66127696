"""Checkpoints of the bundled models: Llama's layout as transformers writes it, LLaDA's and SDAR's with official names.

In: a trained network. Out: a folder that `demur.load` reads as it reads any other. Weights are kept in bfloat16.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3ForCausalLM

from demur.models.formats.llada import BLOCK, TOP

LLAMA_BLOCK = {llama: llada for llada, llama in BLOCK.items()}
LLAMA_TOP = {llama: llada for llada, llama in TOP.items()}


def save_llama(network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, response: int) -> None:
    """An autoregressive checkpoint."""
    network.to(torch.bfloat16).save_pretrained(folder)
    _save_rest(tokenizer, folder, response)


def save_llada(network: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, response: int) -> None:
    """A masked-diffusion checkpoint in the layout of GSAI-ML/LLaDA-8B."""
    config = network.config
    settings = {
        "model_type": "llada",
        "architectures": ["LLaDAModelLM"],
        "d_model": config.hidden_size,
        "n_layers": config.num_hidden_layers,
        "n_heads": config.num_attention_heads,
        "n_kv_heads": config.num_key_value_heads,
        "mlp_hidden_size": config.intermediate_size,
        "vocab_size": config.vocab_size,
        "embedding_size": config.vocab_size,
        "max_sequence_length": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope": True,
        "rope_theta": config.rope_parameters["rope_theta"],
        "block_type": "llama",
        "block_group_size": 1,
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "layer_norm_with_affine": True,
        "attention_layer_norm": False,
        "bias_for_layer_norm": False,
        "include_bias": False,
        "include_qkv_bias": False,
        "multi_query_attention": None,
        "alibi": False,
        "input_emb_norm": False,
        "scale_logits": False,
        "weight_tying": True,
    }
    tensors = {llada_name(name): value for name, value in network.named_parameters()}
    _save_masked(tensors, settings, tokenizer, folder, response)


def save_sdar(
    network: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path, response: int, block_length: int
) -> None:
    """A block diffusion checkpoint in the layout of JetLM/SDAR, whose tensors have Qwen3's names."""
    config = network.config
    settings = {
        "model_type": "sdar",
        "architectures": ["SDARForCausalLM"],
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_parameters["rope_theta"],
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "block_size": block_length,
    }
    _save_masked(dict(network.named_parameters()), settings, tokenizer, folder, response)


def llada_name(name: str) -> str:
    """The official name of a tensor of `LlamaForCausalLM`."""
    module, _, kind = name.rpartition(".")
    if module in LLAMA_TOP:
        return f"model.transformer.{LLAMA_TOP[module]}.{kind}"
    _, _, block, inner = module.split(".", 3)
    return f"model.transformer.blocks.{block}.{LLAMA_BLOCK[inner]}.{kind}"


def _save_masked(
    tensors: Mapping[str, torch.Tensor],
    settings: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    response: int,
) -> None:
    """Weights, config and the rest of a checkpoint that transformers does not write itself."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: value.to(torch.bfloat16).contiguous() for name, value in tensors.items()}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    names = ("mask_token_id", "eos_token_id", "pad_token_id")
    whole = {**settings, **{name: getattr(tokenizer, name) for name in names}, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    _save_rest(tokenizer, folder, response)


def _save_rest(tokenizer: PreTrainedTokenizerFast, folder: Path, response: int) -> None:
    tokenizer.save_pretrained(folder)
    GenerationConfig(
        do_sample=False,
        max_new_tokens=response,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(folder)
