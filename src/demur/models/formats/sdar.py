"""SDAR checkpoints in transformers' Qwen3 blocks, without remote code.

In: the config and folder of a checkpoint in the official layout, which is Qwen3's. Out: a `Qwen3ForCausalLM` whose
attention is block-causal. Its logits are not shifted. The mixture-of-experts models are Qwen3-MoE's by their names and
not covered.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from demur.errors import InputError
from demur.models.checkpoint import Built, DType, mask_token, token_id
from demur.models.end_tokens import token_ids
from demur.models.formats.bidirectional import make_block_causal
from demur.models.formats.llada import response_length
from demur.models.formats.qwen import read_network
from demur.models.json_file import read_json_if_there

MASK = 151669
"""The mask token of the official checkpoints, used where the config names none."""
BLOCK = 4
TRAINING = ("fuse_cross_entropy", "debug", "ep_size", "micro_forward", "skip_checkpoint", "use_deepep")
"""Keys that matter to training alone."""


def build_sdar(config: Mapping[str, Any], folder: Path, dtype: DType, device: torch.device) -> Built:
    """The network of an SDAR checkpoint; experts, scaled rotary embeddings and sliding windows are `InputError`s."""
    if experts := [key for key in config if "expert" in key or key.startswith("moe_")]:
        raise InputError(
            f"{folder / 'config.json'}: {experts[0]} belongs to SDAR-MoE, which is not supported; load the checkpoint "
            f"with its own code and hand the network to demur.models.from_network"
        )
    network = read_network(config, folder, dtype, device, "qwen3", known=("block_size", *TRAINING))
    block = token_id(config, "block_size", BLOCK, folder)
    if block < 1:
        raise InputError(f"{folder / 'config.json'}: block_size is {block}, expected a whole number of at least 1")
    make_block_causal(network, block)
    generation = read_json_if_there(folder / "generation_config.json")
    asked = {"response_length": response_length(folder)} if generation.get("max_new_tokens") else {}
    return Built(
        network=network,
        family="masked-diffusion",
        eos_token_ids=token_ids(generation.get("eos_token_id"), config.get("eos_token_id")),
        mask_token_id=mask_token(config, MASK, folder, network),
        samplers=("BlockDiffusion",),
        sampler_defaults={"block_length": block, "schedule": "dynamic", "threshold": 0.85, **asked},
    )
