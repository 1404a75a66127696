"""A2D checkpoints: Qwen3, Qwen2 and Llama models turned into diffusion models, without remote code.

In: the config and folder of a checkpoint, whose tensors have the names of the model it came from. Out: that model's
network, which attends in both directions. Whether it was trained to fill a whole canvas (MDLM) or block by block
(BD3LM) the config does not tell; either sampler runs on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from demur.errors import InputError
from demur.models.checkpoint import Built, DType, Mode, token_id
from demur.models.end_tokens import token_ids
from demur.models.formats.bidirectional import make_bidirectional
from demur.models.formats.qwen import Layout, read_network
from demur.models.json_file import read_json_if_there

MODES = {
    "mdlm": Mode("MaskedDiffusion", {"response_length": 128, "schedule": "rounded"}),
    "bd3lm": Mode("BlockDiffusion", {"block_length": 32, "schedule": "rounded", "blocks_from": "response"}),
}


def build_a2d(config: Mapping[str, Any], folder: Path, dtype: DType, device: torch.device) -> Built:
    """The network of an A2D checkpoint, whose model type ends with the model it came from."""
    layout = cast(Layout, str(config["model_type"]).removeprefix("a2d-"))
    network = read_network(config, folder, dtype, device, layout)
    make_bidirectional(network)
    generation = read_json_if_there(folder / "generation_config.json")
    return Built(
        network=network,
        family="masked-diffusion",
        eos_token_ids=token_ids(generation.get("eos_token_id"), config.get("eos_token_id")),
        mask_token_id=_mask(config, folder),
        modes=MODES,
    )


def _mask(config: Mapping[str, Any], folder: Path) -> int:
    """The mask token: the config's, else that of the tokenizer's files, which is where A2D names it."""
    if config.get("mask_token_id") is not None:
        return token_id(config, "mask_token_id", 0, folder)
    settings = read_json_if_there(folder / "tokenizer_config.json")
    named = settings.get("mask_token")
    text = named.get("content") if isinstance(named, dict) else named
    for number, added in (settings.get("added_tokens_decoder") or {}).items():
        if text and isinstance(added, dict) and added.get("content") == text and str(number).isdigit():
            return int(number)
    raise InputError(
        f"{folder}: neither config.json (mask_token_id) nor tokenizer_config.json (mask_token, added_tokens_decoder) "
        f"names the mask token; put mask_token_id into config.json"
    )
