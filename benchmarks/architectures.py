"""Which architectures demur follows exactly, on tiny random networks, and the table of `docs/architectures.md`.

For each: 12 prompts of mixed lengths in one batch, with and without a beginning that all share, and again with rows
that end early. Every row's tokens and states are held against one plain pass of transformers over its prompt and
response, and some rows' tokens against transformers' `generate`.

    python benchmarks/architectures.py [NAME ...] [--write]
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import demur
from demur.errors import InputError
from demur.models import Model, from_network
from demur.samplers.proof import way_for

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
STEPS = 6
TOLERANCE = 1e-3
BASE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 1,
    "eos_token_id": 3,
    "bos_token_id": 4,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "apertus": {**BASE, "model_type": "apertus"},
    "arcee": {**BASE, "model_type": "arcee"},
    "bamba": {
        **BASE,
        "model_type": "bamba",
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "attn_layer_indices": [1, 3],
    },
    "bert": {**BASE, "model_type": "bert", "is_decoder": True},
    "bert_mlm": {**BASE, "model_type": "bert"},
    "biogpt": {**BASE, "model_type": "biogpt"},
    "bitnet": {**BASE, "model_type": "bitnet"},
    "bloom": {
        "model_type": "bloom",
        "vocab_size": 300,
        "hidden_size": 32,
        "n_layer": 4,
        "n_head": 4,
        "eos_token_id": 3,
        "bos_token_id": 4,
        "pad_token_id": 1,
    },
    "codegen": {
        "model_type": "codegen",
        "vocab_size": 300,
        "n_embd": 32,
        "n_layer": 4,
        "n_head": 4,
        "rotary_dim": 4,
        "n_positions": 512,
        "n_ctx": 512,
        "eos_token_id": 3,
    },
    "cohere": {**BASE, "model_type": "cohere"},
    "cohere2": {**BASE, "model_type": "cohere2", "sliding_window": 8},
    "ctrl": {
        "model_type": "ctrl",
        "vocab_size": 300,
        "n_embd": 32,
        "dff": 64,
        "n_layer": 4,
        "n_head": 4,
        "n_positions": 512,
    },
    "deepseek_v2": {
        **BASE,
        "model_type": "deepseek_v2",
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
        "topk_method": "greedy",
    },
    "deepseek_v3": {
        **BASE,
        "model_type": "deepseek_v3",
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 1,
        "topk_group": 1,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "moe_intermediate_size": 16,
        "first_k_dense_replace": 1,
    },
    "doge": {**BASE, "model_type": "doge"},
    "ernie4_5": {**BASE, "model_type": "ernie4_5"},
    "exaone4": {
        **BASE,
        "model_type": "exaone4",
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    },
    "falcon": {
        "model_type": "falcon",
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "alibi": False,
        "eos_token_id": 3,
        "bos_token_id": 4,
    },
    "falcon_alibi": {
        "model_type": "falcon",
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "alibi": True,
        "eos_token_id": 3,
        "bos_token_id": 4,
    },
    "falcon_h1": {
        **BASE,
        "model_type": "falcon_h1",
        "mamba_d_ssm": 32,
        "mamba_n_heads": 4,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
    },
    "falcon_mamba": {
        "model_type": "falcon_mamba",
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "state_size": 8,
        "eos_token_id": 3,
        "pad_token_id": 1,
    },
    "gemma2": {**BASE, "model_type": "gemma2", "head_dim": 8, "sliding_window": 8},
    "gemma3_text": {
        **BASE,
        "model_type": "gemma3_text",
        "head_dim": 8,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    },
    "gemma3n_text": {
        **BASE,
        "model_type": "gemma3n_text",
        "intermediate_size": [64, 64, 64, 64],
        "head_dim": 8,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": 300,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 4,
        "altup_num_inputs": 2,
        "activation_sparsity_pattern": [0.0, 0.0, 0.0, 0.0],
    },
    "gemma4_text": {
        **BASE,
        "model_type": "gemma4_text",
        "head_dim": 8,
        "sliding_window": 8,
        "vocab_size_per_layer_input": 300,
        "hidden_size_per_layer_input": 8,
        "global_head_dim": 8,
    },
    "glm4": {**BASE, "model_type": "glm4", "head_dim": 8},
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 300,
        "n_embd": 32,
        "n_layer": 4,
        "n_head": 4,
        "n_positions": 512,
        "eos_token_id": 3,
        "bos_token_id": 4,
        "pad_token_id": 1,
    },
    "gpt_bigcode": {
        "model_type": "gpt_bigcode",
        "vocab_size": 300,
        "n_embd": 32,
        "n_layer": 4,
        "n_head": 4,
        "n_positions": 512,
        "eos_token_id": 3,
        "bos_token_id": 4,
        "pad_token_id": 1,
    },
    "gpt_neo": {
        "model_type": "gpt_neo",
        "vocab_size": 300,
        "hidden_size": 32,
        "num_layers": 4,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 2]],
        "window_size": 8,
        "max_position_embeddings": 512,
        "eos_token_id": 3,
        "bos_token_id": 4,
    },
    "gpt_neox": {**BASE, "model_type": "gpt_neox"},
    "gpt_oss": {
        **BASE,
        "model_type": "gpt_oss",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "head_dim": 8,
        "sliding_window": 8,
    },
    "gptj": {
        "model_type": "gptj",
        "vocab_size": 300,
        "n_embd": 32,
        "n_layer": 4,
        "n_head": 4,
        "rotary_dim": 4,
        "n_positions": 512,
        "eos_token_id": 3,
        "bos_token_id": 4,
    },
    "granite": {**BASE, "model_type": "granite"},
    "granitemoehybrid": {
        **BASE,
        "model_type": "granitemoehybrid",
        "mamba_n_heads": 8,
        "mamba_d_head": 8,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "layer_types": ["mamba", "attention", "mamba", "attention"],
        "num_local_experts": 0,
        "shared_intermediate_size": 64,
    },
    "hunyuan_v1_dense": {**BASE, "model_type": "hunyuan_v1_dense", "head_dim": 8},
    "jamba": {
        **BASE,
        "model_type": "jamba",
        "num_experts": 2,
        "mamba_d_state": 8,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "use_mamba_kernels": False,
    },
    "kimi_linear": {
        **BASE,
        "model_type": "kimi_linear",
        "linear_num_heads": 4,
        "linear_head_dim": 8,
        "layer_types": ["linear_attention"] * 3 + ["full_attention"],
        "num_key_value_heads": 4,
        "num_experts": 4,
        "moe_intermediate_size": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
        "num_experts_per_token": 2,
    },
    "lfm2": {
        **BASE,
        "model_type": "lfm2",
        "layer_types": ["conv", "conv", "full_attention", "conv"],
        "conv_L_cache": 3,
    },
    "llama": {**BASE, "model_type": "llama"},
    "llama4_text": {
        **BASE,
        "model_type": "llama4_text",
        "num_local_experts": 2,
        "intermediate_size_mlp": 64,
        "head_dim": 8,
        "attention_chunk_size": 8,
    },
    "mamba": {
        "model_type": "mamba",
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "state_size": 8,
        "eos_token_id": 3,
        "pad_token_id": 1,
    },
    "mamba2": {
        "model_type": "mamba2",
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "state_size": 8,
        "num_heads": 8,
        "head_dim": 8,
        "n_groups": 1,
        "eos_token_id": 3,
        "pad_token_id": 1,
    },
    "minimax": {
        **BASE,
        "model_type": "minimax",
        "num_local_experts": 2,
        "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
        "head_dim": 8,
        "block_size": 8,
    },
    "minimax_m2": {**BASE, "model_type": "minimax_m2", "num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8},
    "ministral": {**BASE, "model_type": "ministral", "head_dim": 8, "sliding_window": 8},
    "mistral_sw8": {**BASE, "model_type": "mistral", "sliding_window": 8},
    "mixtral": {**BASE, "model_type": "mixtral", "num_local_experts": 4},
    "nemotron": {**BASE, "model_type": "nemotron"},
    "nemotron_h": {
        **BASE,
        "model_type": "nemotron_h",
        "hybrid_override_pattern": "M*M-",
        "layers_block_type": ["mamba", "attention", "mamba", "mlp"],
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "ssm_state_size": 8,
        "n_groups": 1,
        "head_dim": 8,
    },
    "olmo2": {**BASE, "model_type": "olmo2"},
    "olmo3": {**BASE, "model_type": "olmo3", "sliding_window": 8},
    "olmoe": {**BASE, "model_type": "olmoe", "num_experts": 4, "num_experts_per_tok": 2},
    "openai-gpt": {
        "model_type": "openai-gpt",
        "vocab_size": 300,
        "n_embd": 32,
        "n_layer": 4,
        "n_head": 4,
        "n_positions": 512,
    },
    "opt": {
        "model_type": "opt",
        "vocab_size": 300,
        "hidden_size": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "pad_token_id": 1,
        "eos_token_id": 3,
        "word_embed_proj_dim": 32,
    },
    "opt_proj": {
        "model_type": "opt",
        "vocab_size": 300,
        "hidden_size": 32,
        "ffn_dim": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "pad_token_id": 1,
        "eos_token_id": 3,
        "word_embed_proj_dim": 16,
        "do_layer_norm_before": False,
    },
    "persimmon": {**BASE, "model_type": "persimmon"},
    "phi": {**BASE, "model_type": "phi"},
    "phi3": {**BASE, "model_type": "phi3"},
    "qwen2": {**BASE, "model_type": "qwen2"},
    "qwen2_moe": {
        **BASE,
        "model_type": "qwen2_moe",
        "num_experts": 4,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
    },
    "qwen3": {**BASE, "model_type": "qwen3", "head_dim": 8},
    "qwen3_5_text": {
        **BASE,
        "model_type": "qwen3_5_text",
        "head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    },
    "qwen3_moe": {
        **BASE,
        "model_type": "qwen3_moe",
        "num_experts": 4,
        "moe_intermediate_size": 16,
        "num_experts_per_tok": 2,
        "head_dim": 8,
    },
    "qwen3_next": {
        **BASE,
        "model_type": "qwen3_next",
        "head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    },
    "recurrent_gemma": {
        **BASE,
        "model_type": "recurrent_gemma",
        "num_key_value_heads": 1,
        "lru_width": 32,
        "attention_window_size": 8,
        "block_types": ["recurrent", "recurrent", "attention", "recurrent"],
    },
    "roberta": {**BASE, "model_type": "roberta", "is_decoder": True},
    "rwkv": {
        "model_type": "rwkv",
        "vocab_size": 300,
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "attention_hidden_size": 32,
        "context_length": 512,
        "eos_token_id": 3,
    },
    "seed_oss": {**BASE, "model_type": "seed_oss", "head_dim": 8},
    "smollm3": {**BASE, "model_type": "smollm3", "no_rope_layers": [1, 1, 1, 0]},
    "stablelm": {**BASE, "model_type": "stablelm"},
    "starcoder2": {**BASE, "model_type": "starcoder2", "sliding_window": 8},
    "xglm": {
        "model_type": "xglm",
        "vocab_size": 300,
        "d_model": 32,
        "ffn_dim": 64,
        "num_layers": 4,
        "attention_heads": 4,
        "max_position_embeddings": 512,
    },
    "xlnet": {"model_type": "xlnet", "vocab_size": 300, "d_model": 32, "n_layer": 4, "n_head": 4, "d_inner": 64},
    "xlstm": {"model_type": "xlstm", "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 4, "num_heads": 4},
    "zamba2": {
        **BASE,
        "model_type": "zamba2",
        "num_key_value_heads": 4,
        "mamba_d_state": 8,
        "n_mamba_heads": 8,
        "mamba_ngroups": 1,
        "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid"],
        "num_mem_blocks": 1,
        "adapter_rank": 4,
    },
}
"""Configs of the networks, by a name each: the window of 8 is shorter than most prompts."""

GENERATE_FAILS = ("xlstm",)
"""Networks with which transformers' own `generate` fails: held against the plain pass alone."""


@dataclass(frozen=True)
class Outcome:
    """What became of an architecture: `refused` is the reason, or empty; `difference` is the largest of any state."""

    name: str
    refused: str = ""
    difference: float = 0.0
    fed: str = ""


def prompts(*, shared: bool) -> list[list[int]]:
    """Twelve prompts of 1 to 25 tokens, or with a beginning of 13 more."""
    rng = np.random.default_rng(int(shared))
    head = rng.integers(10, 290, 13).tolist() if shared else []
    lengths = (3, 24, 1, 11, 7, 7, 2, 16, 5, 9, 25, 4)
    return [[*head, 20 + place, *rng.integers(10, 290, length - 1).tolist()] for place, length in enumerate(lengths)]


def network_of(name: str) -> Any:
    """The tiny random network of an architecture."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = dict(ARCHITECTURES[name])
    torch.manual_seed(1)
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(config.pop("model_type"), **config)).eval()
    for weights in network.parameters():
        if weights.dim() >= 2:
            weights.data.normal_(0, 0.15)
    return network


def check(name: str) -> Outcome:
    """Hold one architecture's batches against plain passes; `AssertionError` where a number differs."""
    network = network_of(name)
    try:
        model = from_network(network, name=name, eos_token_ids=[])
        differences = [_hold(model, prompts(shared=shared)) for shared in (True, False)]
        fourth = demur.record(model, [{"token_ids": prompts(shared=False)[3]}], steps=3, progress=False)
        model.eos_token_ids = [int(fourth.steps_tokens(0).predicted[-1][1])]
        differences.append(_hold(model, prompts(shared=False), every=3))
    except InputError as error:
        return Outcome(name, refused=str(error).removeprefix(f"{name}: "))
    return Outcome(name, difference=max(differences), fed=_fed(model))


@torch.no_grad()
def _hold(model: Model, rows: list[list[int]], every: int = 1) -> float:
    """The largest difference of phi from that of plain passes, of every so many rows; tokens must be the same."""
    recording = demur.record(
        model, [{"token_ids": ids} for ids in rows], steps=STEPS, batch_size=len(rows), progress=False
    )
    worst = 0.0
    for row, ids in list(enumerate(rows))[::every]:
        step = recording.steps_tokens(row)
        response = step.predicted[-1][step.is_committed[-1]].tolist()
        options = {"output_hidden_states": True, "use_cache": False}
        output = model.network(input_ids=torch.tensor([ids + response]), **options)
        greedy = output.logits[0, len(ids) - 1 : -1].argmax(dim=-1).tolist()
        assert greedy == response, f"{model.name}, row {row}: tokens {response}, in one pass {greedy}"
        last = output.hidden_states[-1]
        if last.ndim != 3:  # Gemma 3n lists what its blocks pass on, which is four streams
            last = model.decoder(input_ids=torch.tensor([ids + response]), use_cache=False).last_hidden_state
        states = last[0, len(ids) :].float()
        phi = states.cumsum(dim=0) / torch.arange(1, len(response) + 1).unsqueeze(1)
        difference = float((torch.from_numpy(recording.phi[row, : len(response), 0]) - phi).abs().max())
        assert difference < TOLERANCE, f"{model.name}, row {row}: states differ by {difference:.2g}"
        worst = max(worst, difference)
        if row == 0 and not model.eos_token_ids and model.name not in GENERATE_FAILS:
            assert _generated(model, ids) == response, f"{model.name}, row {row}: other tokens than generate"
    return worst


def _generated(model: Model, ids: list[int]) -> list[int]:
    given = torch.tensor([ids])
    options = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    made = model.network.generate(given, attention_mask=torch.ones_like(given), **options)
    return list(made[0, len(ids) :].tolist())


def _fed(model: Model) -> str:
    """How rows of different lengths were fed."""
    way = way_for(model, 44, 12)
    if way.cache is None:
        return "rows of one length, whole text each step"
    if not way.padded:
        return "rows of one length"
    return "padded"


def page(outcomes: list[Outcome]) -> str:
    """The page's text, with new rows for what was checked."""
    head, _, table = PAGE.read_text().partition("| architecture |")
    rows = {line.split("|")[1].strip(): line for line in table.splitlines()[2:]}
    for one in outcomes:
        cells = (f"refused: {one.refused}", "", "") if one.refused else ("works", f"{one.difference:.0e}", one.fed)
        rows[one.name] = "| " + " | ".join((one.name, *cells)) + " |"
    lines = ["| architecture | outcome | largest difference | batches of mixed lengths |", "|---|---|---|---|"]
    return head + "\n".join([*lines, *(rows[name] for name in sorted(rows) if name in ARCHITECTURES)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="architectures; all by default")
    parser.add_argument("--write", action="store_true", help="write the table of docs/architectures.md")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    outcomes = []
    for name in given.names or sorted(ARCHITECTURES):
        outcomes.append(check(name))
        print(outcomes[-1], flush=True)
    if given.write:
        PAGE.write_text(page(outcomes))


if __name__ == "__main__":
    main()
