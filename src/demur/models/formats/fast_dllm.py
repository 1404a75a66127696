"""Fast-dLLM v2 checkpoints in transformers' Qwen2 blocks, without remote code.

In: the config and folder of a checkpoint in the official layout, whose tensors have Qwen2's names. Out: a
`Qwen2ForCausalLM` whose attention is block-causal and whose logits are shifted within a block.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from demur.models.checkpoint import Built, DType, mask_token, token_id
from demur.models.end_tokens import token_ids
from demur.models.formats.bidirectional import make_block_causal
from demur.models.formats.qwen import read_network
from demur.models.json_file import read_json_if_there

MASK, STOP, BLOCK = 151665, 151645, 32
"""What the official `generate` takes by default and the config does not name."""
OWN = ("bd_size", "conplemenrary_mask", "complementary_mask")


def build_fast_dllm(config: Mapping[str, Any], folder: Path, dtype: DType, device: torch.device) -> Built:
    """The network of a Fast-dLLM v2 checkpoint; scaled rotary embeddings and sliding windows are `InputError`s."""
    network = read_network(config, folder, dtype, device, "qwen2", known=OWN)
    block = token_id(config, "bd_size", BLOCK, folder)
    make_block_causal(network, block)
    generation = read_json_if_there(folder / "generation_config.json")
    ends = token_ids(generation.get("eos_token_id"), config.get("eos_token_id"))
    return Built(
        network=network,
        family="masked-diffusion",
        eos_token_ids=[one for one in [STOP, *ends] if one < network.config.vocab_size],
        mask_token_id=mask_token(config, MASK, folder, network),
        logits_shifted=True,
        samplers=("ClosingBlockDiffusion",),
        sampler_defaults={"block_length": block, "small_block_length": min(8, block), "threshold": 0.9},
    )
