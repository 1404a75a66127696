"""Tiny random checkpoints that tests write, damage and load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

import toy

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
