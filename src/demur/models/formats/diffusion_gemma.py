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
from demur.models.checkpoint import Built, DType
from demur.models.formats.causal import from_files, read_settings
from demur.models.limits import require_sane_config
from demur.models.weight_files import read_headers, weight_files, wrapper_prefix


def build_diffusion_gemma(config: Mapping[str, Any], folder: Path, dtype: DType, device: torch.device) -> Built:
    """The network of a DiffusionGemma checkpoint; its response is one canvas unless the sampler says otherwise."""
    import transformers

    if not hasattr(transformers, "DiffusionGemmaForBlockDiffusion"):
        raise InputError("DiffusionGemma needs a newer transformers: pip install -U transformers")
    tensors = read_headers(folder, weight_files(folder))
    require_sane_config(config, folder, tensors)
    prefix = wrapper_prefix(list(tensors))
    options: dict[str, Any] = {"config": read_settings(folder, trust_remote_code=False), "use_safetensors": True}
    if prefix:
        raise InputError(f"{folder}: every tensor's name begins with {prefix!r}; take it off and save the file again")
    network = from_files(folder, dtype, options, "DiffusionGemmaForBlockDiffusion").to(device).eval()
    ends = network.generation_config.eos_token_id
    ends = network.config.get_text_config().eos_token_id if ends is None else ends
    return Built(
        network=network,
        family="uniform-diffusion",
        eos_token_ids=[] if ends is None else list(ends) if isinstance(ends, list) else [int(ends)],
        sampler_defaults={"response_length": int(network.config.canvas_length)},
    )
