"""Three ways of block diffusion over the same weights: what `benchmarks/diffusion.py --kind blocks` compares.

(official) LLaDA-2.0's `generate`: one prompt at a time, every step a pass over the text up to the end of the current
    block, with logits at every position and no cache;
(cached) SDAR's `block_diffusion_generate`: one prompt at a time, finished blocks in a KV cache, logits of a block;
(demur) `BlockDiffusion.steps` over the whole batch.

All commit the surest tokens, as many at each step of a block. The first two keep the final states of every position
they ran, as the code released with arXiv 2602.02600 does, and are written anew here. The model is random and in SDAR's
layout: a vocabulary of 151,936, width 192, 12 layers, tied embeddings, 34 million parameters.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import DynamicCache

from demur.models import Model
from demur.samplers import BlockDiffusion, Sampler

WIDTH, LAYERS, HEADS, PAIRS, SIZE, INNER, VOCABULARY = 192, 12, 4, 2, 48, 512, 151936
MASK = VOCABULARY - 1
BLOCK = 8


def write_model(folder: Path) -> int:
    """A random checkpoint in SDAR's layout; returns its number of parameters."""
    generator = torch.Generator().manual_seed(0)
    config = {"model_type": "sdar", "vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": INNER}
    config |= {"num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": PAIRS}
    config |= {"head_dim": SIZE, "hidden_act": "silu", "rms_norm_eps": 1e-6, "rope_theta": 1e6, "block_size": BLOCK}
    config |= {"max_position_embeddings": 4096, "tie_word_embeddings": True, "mask_token_id": MASK}
    config |= {"attention_bias": False}
    shapes: dict[str, tuple[int, ...]] = {"embed_tokens": (VOCABULARY, WIDTH), "norm": (WIDTH,)}
    for layer in range(LAYERS):
        at = f"layers.{layer}"
        shapes |= {f"{at}.self_attn.{name}_proj": (PAIRS * SIZE, WIDTH) for name in "kv"}
        shapes |= {f"{at}.self_attn.q_proj": (HEADS * SIZE, WIDTH), f"{at}.self_attn.o_proj": (WIDTH, HEADS * SIZE)}
        shapes |= {f"{at}.self_attn.{name}_norm": (SIZE,) for name in "qk"}
        shapes |= {f"{at}.mlp.{name}_proj": (INNER, WIDTH) for name in ("gate", "up")}
        shapes |= {f"{at}.mlp.down_proj": (WIDTH, INNER)}
        shapes |= {f"{at}.{name}_layernorm": (WIDTH,) for name in ("input", "post_attention")}
    weights = {
        f"model.{name}.weight": torch.ones(shape) if len(shape) == 1 else 0.1 * torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return sum(one.numel() for one in weights.values())


def commit(x: torch.Tensor, logits: torch.Tensor, start: int, count: int) -> None:
    """Write the `count` surest predictions into the masks of the block that begins at `start`; x is ``[1, all]``."""
    block = x[0, start : start + BLOCK]
    share = torch.softmax(logits.float(), dim=-1)
    confidence, guess = share.max(dim=-1)
    confidence = torch.where(block == MASK, confidence, -torch.inf)
    chosen = confidence.topk(min(count, int((block == MASK).sum()))).indices
    block[chosen] = guess[chosen]


@torch.no_grad()
def official_way(model: Model, prompts: torch.Tensor, steps: int, response: int) -> list[list[int]]:
    """steps : of all blocks together. The prompts' length is a multiple of the block's."""
    found, count = [], response // steps
    for prompt in prompts:
        x = torch.cat([prompt, torch.full((response,), MASK)]).unsqueeze(0)
        kept = []
        for start in range(len(prompt), x.shape[1], BLOCK):
            for _ in range(BLOCK // count):
                window = x[:, : start + BLOCK]
                output = model.network(input_ids=window, output_hidden_states=True)
                kept.append(output.hidden_states[-1])
                commit(x, output.logits[0, start:], start, count)
        torch.stack([states[0, len(prompt) :].mean(dim=0) for states in kept])
        found.append(x[0, len(prompt) :].tolist())
    return found


@torch.no_grad()
def cached_way(model: Model, prompts: torch.Tensor, steps: int, response: int) -> list[list[int]]:
    found, count = [], response // steps
    for prompt in prompts:
        x = torch.cat([prompt, torch.full((response,), MASK)]).unsqueeze(0)
        cache, kept = DynamicCache(), []
        places = torch.arange(len(prompt))
        sight = torch.zeros(1, 1, len(prompt), len(prompt))
        sight.masked_fill_(places // BLOCK > (places // BLOCK)[:, None], torch.finfo(torch.float32).min)
        model.decoder(input_ids=x[:, : len(prompt)], attention_mask=sight, past_key_values=cache, use_cache=True)
        for start in range(len(prompt), x.shape[1], BLOCK):
            for step in range(BLOCK // count + 1):  # the last one stores the finished block
                end = start + BLOCK
                output = model.network(
                    input_ids=x[:, start:end],
                    attention_mask=torch.zeros(1, 1, BLOCK, end),
                    position_ids=torch.arange(start, end).unsqueeze(0),
                    past_key_values=cache,
                    use_cache=True,
                    output_hidden_states=True,
                )
                kept.append(output.hidden_states[-1])
                if step < BLOCK // count:
                    cache.crop(-BLOCK)
                    commit(x, output.logits[0], start, count)
        torch.stack([states[0].mean(dim=0) for states in kept])
        found.append(x[0, len(prompt) :].tolist())
    return found


def tokens_of(sampler: Sampler, model: Model, prompts: torch.Tensor) -> list[list[int]]:
    """Run a sampler over the whole batch and keep phi of every step; the tokens of each row."""
    phi = []
    for step in sampler.steps(model, prompts):
        phi.append(step.phi)
    torch.stack(phi, dim=1)
    tokens: list[list[int]] = step.committed.tolist()
    return tokens


def demur_way(model: Model, prompts: torch.Tensor, steps: int, response: int) -> list[list[int]]:
    share = BLOCK * steps // response
    # One block more than these prompts need: a prompt may end inside one.
    room = (response // BLOCK + 1) * share
    sampler = BlockDiffusion(room, response, block_length=BLOCK, denoising_steps=share, stop_ids=[])
    return [row[:response] for row in tokens_of(sampler, model, prompts)]
