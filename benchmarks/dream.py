"""Two ways of Dream over the same weights: what `benchmarks/diffusion.py --kind dream` compares.

(official) Dream's `diffusion_generate`: one prompt at a time, every step a pass over prompt and response, with logits
    at every position, shifted by one, and entropies of the masked ones; the final states of every position are kept,
    as the code released with arXiv 2602.02600 does. Written anew here;
(demur) `MaskedDiffusion.steps` over the whole batch, with Dream's rule and time grid.

The model is random and in Dream's layout: a vocabulary of 152,064, width 160, 24 layers, five heads that share one
pair of key and value, biases, tied embeddings, 33 million parameters.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from blocks import tokens_of
from demur.models import Model
from demur.samplers import MaskedDiffusion

WIDTH, LAYERS, HEADS, PAIRS, INNER, VOCABULARY, MASK = 160, 24, 5, 1, 640, 152064, 151666
LAST_TIME = 1e-3  # where the official time grid ends


def write_model(folder: Path) -> int:
    """A random checkpoint in Dream's layout; returns its number of parameters."""
    generator = torch.Generator().manual_seed(0)
    config = {"model_type": "Dream", "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": INNER}
    config |= {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": PAIRS}
    config |= {"hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e6, "max_position_embeddings": 4096}
    config |= {"tie_word_embeddings": True, "mask_token_id": MASK, "use_sliding_window": False}
    narrow = PAIRS * WIDTH // HEADS
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens.weight": (VOCABULARY, WIDTH), "norm.weight": (WIDTH,)}
    for layer in range(LAYERS):
        at = f"layers.{layer}"
        for name, width in {"q": WIDTH, "k": narrow, "v": narrow}.items():
            shapes |= {
                f"{at}.self_attn.{name}_proj.weight": (width, WIDTH),
                f"{at}.self_attn.{name}_proj.bias": (width,),
            }
        shapes |= {f"{at}.self_attn.o_proj.weight": (WIDTH, WIDTH), f"{at}.mlp.down_proj.weight": (WIDTH, INNER)}
        shapes |= {f"{at}.mlp.{name}_proj.weight": (INNER, WIDTH) for name in ("gate", "up")}
        shapes |= {f"{at}.{name}_layernorm.weight": (WIDTH,) for name in ("input", "post_attention")}
    weights = {
        f"model.{name}": torch.ones(shape) if "norm" in name else 0.1 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return sum(one.numel() for one in weights.values())


@torch.no_grad()
def official_way(model: Model, prompts: torch.Tensor, steps: int, response: int) -> list[list[int]]:
    found, grid = [], torch.linspace(1, LAST_TIME, steps + 1)
    for prompt in prompts:
        x = torch.cat([prompt, torch.full((response,), MASK)]).unsqueeze(0)
        kept = []
        for step in range(steps):
            masked = x == MASK
            output = model.network(input_ids=x, output_hidden_states=True)
            kept.append(output.hidden_states[-1])
            logits = torch.cat([output.logits[:, :1], output.logits[:, :-1]], dim=1)[masked]
            share = torch.softmax(logits, dim=-1)
            guess = share.max(dim=-1).indices
            confidence = (share * torch.log(share + 1e-10)).sum(dim=-1)
            left = masked.sum()
            due = int(left * (1 - grid[step + 1] / grid[step])) if step < steps - 1 else int(left)
            chosen = confidence.topk(due).indices
            x[0, masked[0].nonzero().squeeze(1)[chosen]] = guess[chosen]
        torch.stack([states[0, len(prompt) :].mean(dim=0) for states in kept])
        found.append(x[0, len(prompt) :].tolist())
    return found


def demur_way(model: Model, prompts: torch.Tensor, steps: int, response: int) -> list[list[int]]:
    return tokens_of(MaskedDiffusion(steps, response, remasking="entropy", schedule="dream"), model, prompts)
