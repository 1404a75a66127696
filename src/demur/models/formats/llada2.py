"""LLaDA-2.0 and LLaDA-2.1 checkpoints in transformers' Glm4-MoE blocks, without remote code.

In: the config and folder of a checkpoint in the official layout. Out: a `Glm4MoeForCausalLM` with query-key norm, the
experts stacked, whose attention is block-causal. The two versions have one config; which it is, the user says: 2.1
edits tokens that are committed, 2.0 does not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from demur.models.checkpoint import Built, DType, Mode, Part, Rows, Target, empty, fill, mask_token
from demur.models.end_tokens import token_ids
from demur.models.formats.bidirectional import make_block_causal
from demur.models.formats.known_keys import require_known, require_there
from demur.models.json_file import read_json_if_there

MASK, END, BLOCK = 156895, 156892, 32
"""What the official `generate` takes by default and the config does not name."""
NEEDED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_experts", "num_experts_per_tok", "moe_intermediate_size"),
)
KNOWN = (
    *NEEDED,
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "rms_norm_eps",
    "hidden_act",
    "tie_word_embeddings",
    "partial_rotary_factor",
    "rotary_dim",
    "rope_theta",
    "n_group",
    "topk_group",
    "routed_scaling_factor",
    "first_k_dense_replace",
    "num_shared_experts",
    "norm_topk_prob",
    "moe_router_enable_expert_bias",
    "router_dtype",
)
COPIED = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    *("max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "moe_intermediate_size"),
    *("num_experts_per_tok", "n_group", "topk_group", "routed_scaling_factor", "first_k_dense_replace"),
    *("norm_topk_prob", "pad_token_id", "eos_token_id", "bos_token_id"),
)
FIXED: dict[str, Any] = {
    "use_qk_norm": True,
    "use_bias": False,
    "use_qkv_bias": False,
    "use_rmsnorm": True,
    "norm_head": False,
    "score_function": "sigmoid",
    "rope_scaling": None,
    "use_sliding_window": False,
    "moe_shared_expert_intermediate_size": None,
    "num_nextn_predict_layers": 0,
}
BLOCK_DEFAULTS = {"block_length": BLOCK, "threshold": 0.95}
MODES = {
    "2.0": Mode(
        "BlockDiffusion", {**BLOCK_DEFAULTS, "schedule": "dynamic", "confidence": "filtered", "minimal_topk": 1}
    ),
    "2.1": Mode("TokenEditing", {**BLOCK_DEFAULTS, "editing_threshold": 0.9}),
}
LAYER = re.compile(r"(model\.layers\.\d+)\.(.+)")
NAMES = {
    "attention.dense.weight": "self_attn.o_proj.weight",
    "attention.query_layernorm.weight": "self_attn.q_norm.weight",
    "attention.key_layernorm.weight": "self_attn.k_norm.weight",
    "mlp.gate.expert_bias": "mlp.gate.e_score_correction_bias",
}
EXPERT = re.compile(r"mlp\.experts\.(\d+)\.(gate|up|down)_proj\.weight")


def build_llada2(config: Mapping[str, Any], folder: Path, dtype: DType, device: torch.device) -> Built:
    """The network of a LLaDA-2 checkpoint; what Glm4-MoE's blocks cannot express is an `InputError`."""
    require_known(config, folder, KNOWN, FIXED)
    require_there(config, folder, NEEDED)
    network = empty(partial(_network, config), folder)
    fill(network, folder, partial(_target, network.config), dtype, device, tied=network.config.tie_word_embeddings)
    make_block_causal(network, BLOCK)
    generation = read_json_if_there(folder / "generation_config.json")
    ends = token_ids(generation.get("eos_token_id"), config.get("eos_token_id"))
    return Built(
        network=network,
        family="masked-diffusion",
        eos_token_ids=[one for one in dict.fromkeys([*ends, END]) if one < network.config.vocab_size],
        mask_token_id=mask_token(config, MASK, folder, network),
        modes=MODES,
        mode_needed=True,
        tokenizer_class="PreTrainedTokenizerFast",
    )


def _network(config: Mapping[str, Any]) -> Any:
    from transformers import Glm4MoeConfig, Glm4MoeForCausalLM

    width, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
    size = int(config.get("head_dim") or width // heads)
    share = config.get("partial_rotary_factor") or int(config.get("rotary_dim") or size) / size
    settings = Glm4MoeConfig(
        **{key: config[key] for key in COPIED if config.get(key) is not None},
        num_key_value_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=size,
        n_routed_experts=int(config["num_experts"]),
        n_shared_experts=int(config.get("num_shared_experts") or 1),
        rope_parameters={
            "rope_type": "default",
            "rope_theta": float(config.get("rope_theta") or 10000.0),
            "partial_rotary_factor": float(share),
        },
        attention_bias=False,
        use_qk_norm=True,
    )
    return Glm4MoeForCausalLM(settings)


def _target(settings: Any, name: str) -> Target:
    """Where a tensor of the official layout goes in `Glm4MoeForCausalLM`."""
    if name == "model.word_embeddings.weight":
        return "model.embed_tokens.weight"
    layer = LAYER.fullmatch(name)
    if not layer:
        return name
    place, rest = layer[1], layer[2]
    if rest == "attention.query_key_value.weight":
        queries = settings.num_attention_heads * settings.head_dim
        keys = settings.num_key_value_heads * settings.head_dim
        ends = (0, queries, queries + keys, queries + 2 * keys)
        return [Rows(f"{place}.self_attn.{one}_proj.weight", *ends[at : at + 2]) for at, one in enumerate("qkv")]
    expert = EXPERT.fullmatch(rest)
    if expert is None:
        return f"{place}.{NAMES.get(rest, rest)}"
    width = settings.moe_intermediate_size
    if expert[2] == "down":
        return Part(f"{place}.mlp.experts.down_proj", int(expert[1]), 0, settings.hidden_size)
    first = 0 if expert[2] == "gate" else width
    return Part(f"{place}.mlp.experts.gate_up_proj", int(expert[1]), first, first + width)
