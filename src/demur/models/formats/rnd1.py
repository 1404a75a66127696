"""RND1 checkpoints in transformers' Qwen3-MoE blocks, without remote code.

In: the config and folder of a checkpoint in the official layout, whose tensors have Qwen3-MoE's names, an expert at a
time. Out: a `Qwen3MoeForCausalLM` with the experts stacked, which attends in both directions and whose logits are
shifted. The config is taken at its word: the official class overwrites its shape with the 30B model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from demur.models.checkpoint import Built, DType, mask_token, token_id
from demur.models.end_tokens import token_ids
from demur.models.formats.bidirectional import make_bidirectional
from demur.models.formats.qwen import read_network
from demur.models.json_file import read_json_if_there

MASK, PAD = 151669, 151643
"""Token ids of the official checkpoint, used where the config names none."""
OWN = ("moe_backend", "num_diffusion_steps")


def build_rnd1(config: Mapping[str, Any], folder: Path, dtype: DType, device: torch.device) -> Built:
    """The network of an RND1 checkpoint; scaled rotary embeddings and sliding windows are `InputError`s."""
    network = read_network(config, folder, dtype, device, "qwen3_moe", known=OWN, fixed={"is_causal": False})
    make_bidirectional(network)
    generation = read_json_if_there(folder / "generation_config.json")
    return Built(
        network=network,
        family="masked-diffusion",
        eos_token_ids=token_ids(generation.get("eos_token_id"), config.get("eos_token_id")),
        mask_token_id=mask_token(config, MASK, folder, network),
        logits_shifted=True,
        sampler_defaults={
            "response_length": 128,
            "remasking": "entropy",
            "schedule": "rnd1",
            "end_token": token_id(config, "pad_token_id", PAD, folder),  # the last of `max_new_tokens` positions
        },
    )
