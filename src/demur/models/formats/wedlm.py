"""WeDLM checkpoints in transformers' Qwen3 or Qwen2 blocks, without remote code.

In: the config and folder of a checkpoint in the official layout, whose tensors have those classes' names. Out: their
network as it is: attention is causal, and masks are moved behind what is committed by the sampler.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from demur.models.checkpoint import Built, DType, mask_token
from demur.models.end_tokens import token_ids
from demur.models.formats.qwen import read_network
from demur.models.json_file import read_json_if_there

MASK = 151666
"""The mask token, used where the config names none."""


def build_wedlm(config: Mapping[str, Any], folder: Path, dtype: DType, device: torch.device) -> Built:
    """The network of a WeDLM checkpoint: with query-key norm Qwen3's, else Qwen2's."""
    layout = "qwen3" if config.get("qk_norm") else "qwen2"
    fixed = {"attention_bias": True} if layout == "qwen2" else {}
    network = read_network(config, folder, dtype, device, layout, known=("qk_norm",), fixed=fixed)  # type: ignore[arg-type]
    generation = read_json_if_there(folder / "generation_config.json")
    return Built(
        network=network,
        family="masked-diffusion",
        eos_token_ids=token_ids(generation.get("eos_token_id"), config.get("eos_token_id")),
        mask_token_id=mask_token(config, MASK, folder, network),
        samplers=("ReorderingDiffusion",),
        sampler_defaults={"block_length": 16, "threshold": 0.0},
    )
