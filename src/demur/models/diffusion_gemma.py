"""DiffusionGemma checkpoints, text only.

In: a folder that transformers' own class reads. Out: that network, with the sampler arguments its canvas
asks for. The vision tower is loaded with the rest and never used.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from demur.errors import InputError
from demur.models.checkpoint import Built, DType, weight_files


def build_diffusion_gemma(config: Mapping[str, Any], folder: Path, dtype: DType, device: torch.device) -> Built:
    """The network of a DiffusionGemma checkpoint; its response is one canvas unless the sampler says otherwise."""
    weight_files(folder)  # safetensors or an error, as for the other formats
    try:
        from transformers import DiffusionGemmaForBlockDiffusion
    except ImportError as error:
        raise InputError("DiffusionGemma needs a newer transformers: pip install -U transformers") from error
    try:
        network = DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=dtype).to(device).eval()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise InputError(f"{folder}: the checkpoint cannot be loaded: {error}") from error
    ends = network.generation_config.eos_token_id
    ends = network.config.get_text_config().eos_token_id if ends is None else ends
    return Built(
        network=network,
        family="uniform-diffusion",
        eos_token_ids=[] if ends is None else list(ends) if isinstance(ends, list) else [int(ends)],
        sampler_defaults={"response_length": int(network.config.canvas_length)},
    )
