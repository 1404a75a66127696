"""Networks of transformers' Qwen2, Qwen3, Llama and Qwen3-MoE classes from the configs of diffusion checkpoints.

In: a config.json that has those classes' keys, under whatever `model_type`. Out: a network whose weights came from the
folder. How it attends is left to the format.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from demur.models.checkpoint import DType, Part, Target, empty, fill
from demur.models.formats.known_keys import require_known, require_there

Layout = Literal["llama", "qwen2", "qwen3", "qwen3_moe"]
CLASSES = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe"}
NEEDED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
KEYS = (
    *NEEDED,
    "intermediate_size",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "hidden_act",
    "tie_word_embeddings",
    "head_dim",
    "attention_bias",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)
SIZES = ("num_experts", "num_experts_per_tok", "moe_intermediate_size")
EXPERT_KEYS = (*SIZES, "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers")
EXPERT = re.compile(r"(model\.layers\.\d+\.mlp\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")
FIXED: dict[str, Any] = {"rope_scaling": None, "use_sliding_window": False, "partial_rotary_factor": (1, 1.0)}
"""What the networks of this module cannot be told to do otherwise."""
OWN = {"llama": ("mlp_bias",), "qwen2": (), "qwen3": (), "qwen3_moe": EXPERT_KEYS}


def read_network(
    config: Mapping[str, Any],
    folder: Path,
    dtype: DType,
    device: torch.device,
    layout: Layout,
    *,
    known: tuple[str, ...] = (),
    fixed: Mapping[str, Any] | None = None,
    values: Mapping[str, Any] | None = None,
    rename: Callable[[str], Target] | None = None,
) -> Any:
    """The network of a checkpoint folder.

    known : keys of the config that the format reads itself. fixed : further keys and the values they may have.
    values : settings that the checkpoint's config gives under other names, or leaves out.
    rename : from the names of stored tensors; by default their own, with the experts stacked.
    """
    fixed_too = {**FIXED, **(fixed or {})}
    keys = (*KEYS, *OWN[layout], "rope_theta", "rope_parameters", *known)
    require_known(config, folder, keys, fixed_too)
    config = {**config, **(values or {})}
    require_there(config, folder, NEEDED + (SIZES if layout == "qwen3_moe" else ()))
    network = empty(partial(_network, config, layout), folder)
    width = int(config.get("moe_intermediate_size") or 0)
    fill(
        network, folder, rename or partial(stacked, width=width), dtype, device, tied=network.config.tie_word_embeddings
    )
    return network


def stacked(name: str, width: int) -> Target:
    """Where a tensor of the common layout goes: an expert's into the stack of its layer, any other as it is named.

    width : inner width of an expert; its gate comes before its up projection.
    """
    expert = EXPERT.fullmatch(name)
    if not expert:
        return name
    if expert[3] == "down":
        return Part(f"{expert[1]}.down_proj", int(expert[2]), 0, 1 << 62)
    first = 0 if expert[3] == "gate" else width
    return Part(f"{expert[1]}.gate_up_proj", int(expert[2]), first, first + width)


def _network(config: Mapping[str, Any], layout: Layout) -> Any:
    import transformers

    given = {key: config[key] for key in (*KEYS, *OWN[layout]) if config.get(key) is not None}
    if layout == "qwen2":  # whose head size follows from the width, and whose biases are fixed
        given = {key: value for key, value in given.items() if key not in ("head_dim", "attention_bias")}
    theta = config.get("rope_theta") or (config.get("rope_parameters") or {}).get("rope_theta") or 10000.0
    given["rope_parameters"] = {"rope_type": "default", "rope_theta": float(theta)}
    if layout != "llama":
        given["use_sliding_window"] = False
    name = CLASSES[layout]
    return getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**given))
