"""LLaDA-MoE checkpoints in transformers' Qwen3-MoE blocks, without remote code.

In: the config and folder of a checkpoint in the official layout, whose tensors have Qwen3-MoE's names, an expert at a
time. Out: a `Qwen3MoeForCausalLM` with the experts stacked, which attends in both directions. Blocks, remasking and
guidance are LLaDA's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from demur.models.checkpoint import Built, DType, mask_token
from demur.models.end_tokens import token_ids
from demur.models.formats.bidirectional import make_bidirectional
from demur.models.formats.known_keys import require_there
from demur.models.formats.llada import response_length
from demur.models.formats.qwen import read_network
from demur.models.json_file import read_json_if_there

MASK = 156895
"""The mask token of the official checkpoints, used where the config names none."""
OWN = ("expert_intermediate_size", "dense_intermediate_size", "moe_layer_freq")
FIXED: dict[str, Any] = {
    "qk_layernorm": True,
    "shared_expert_intermediate_size": 0,
    "clip_qkv": None,
    "moe_router_enable_expert_bias": False,
    "moe_router_score_function": "softmax",
    "routed_scaling_factor": (1, 1.0),
    "router_num_group": None,
    "router_topk_group": None,
}


def build_llada_moe(config: Mapping[str, Any], folder: Path, dtype: DType, device: torch.device) -> Built:
    """The network of a LLaDA-MoE checkpoint; shared experts and grouped routing are `InputError`s."""
    require_there(config, folder, ("num_experts", "num_experts_per_tok", "expert_intermediate_size"))
    values = {
        "moe_intermediate_size": config["expert_intermediate_size"],
        "intermediate_size": config.get("dense_intermediate_size") or config["expert_intermediate_size"],
        "norm_topk_prob": bool(config.get("norm_topk_prob")),
        "mlp_only_layers": _dense_layers(config),
    }
    network = read_network(config, folder, dtype, device, "qwen3_moe", known=OWN, fixed=FIXED, values=values)
    make_bidirectional(network)
    generation = read_json_if_there(folder / "generation_config.json")
    return Built(
        network=network,
        family="masked-diffusion",
        eos_token_ids=token_ids(generation.get("eos_token_id"), config.get("eos_token_id")),
        mask_token_id=mask_token(config, MASK, folder, network),
        sampler_defaults={"response_length": response_length(folder), "remasking": "low_confidence"},
    )


def _dense_layers(config: Mapping[str, Any]) -> list[int]:
    """The layers without experts: those whose entry in `moe_layer_freq` is 0."""
    given = config.get("moe_layer_freq")
    return [layer for layer, kept in enumerate(given) if not kept] if isinstance(given, list) else []
