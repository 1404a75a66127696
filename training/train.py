"""Train one of the bundled models: `python training/train.py KIND OUT --seed N`.

In: the toy corpus, drawn as it is needed. Out: a checkpoint folder, Llama's layout for "ar", LLaDA's for "diffusion"
and SDAR's for "block", with tokenizer and chat template. The same seed on the same machine gives the same weights.
"block" begins at a trained "diffusion", the others at nothing.
Optimizer: Muon (Jordan et al., 2024) on the matrices, AdamW on embeddings and norms; "block" has AdamW for all.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

import demur
from blocks import LENGTH, block_loss, from_diffusion
from checkpoint import save_llada, save_llama, save_sdar
from corpus import Request, reply, training_request
from demur.models.chat import ChatFormat
from demur.models.formats.bidirectional import make_bidirectional
from tokenizer import train_tokenizer

WIDTH, LAYERS, HEADS, INNER, CONTEXT = 192, 4, 6, 512, 256
RESPONSE, BATCH, POOL = 32, 64, 1024
"""Response positions; conversations a step; conversations drawn at a time and sorted by the length of their prompt."""
ROUNDS = {"ar": (900,), "diffusion": (1800, 1200), "block": (200, 200)}
"""Training steps of each round. A round begins at the last one's checkpoint with new optimizers, and ends in one."""
MUON_RATE, ADAM_RATE, WARM_UP = 0.02, 3e-3, 100
BLOCK_RATE, BLOCK_WARM_UP, BLOCK_BATCH = 1e-3, 20, 32
"""Of the block diffusion model, whose weights are trained already when it begins."""
IGNORED = -100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=list(ROUNDS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from-round", type=int, default=1, help="go on from the checkpoint that OUT holds already")
    parser.add_argument("--begin", default="demur/tiny-diffusion", help="the masked diffusion model of a block's start")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for number, steps in enumerate(ROUNDS[chosen.kind], start=1):
        if number >= chosen.from_round:
            begin = chosen.begin if number == 1 else None
            train(chosen.kind, chosen.out, chosen.seed + 1000 * (number - 1), steps, begin=begin)


def train(kind: str, out: Path, seed: int, steps: int, *, begin: str | None) -> None:
    """One round of training: the first where `begin` is given, else from the checkpoint in `out`.

    begin : the masked diffusion model at which a block diffusion model begins. The result replaces what is in `out`.
    """
    torch.manual_seed(seed)
    draws = random.Random(seed)
    tokenizer = toy_tokenizer()
    drawn = batches(draws, tokenizer, BLOCK_BATCH if kind == "block" else BATCH)
    if begin is None:
        network: PreTrainedModel = demur.load(out).network
    elif kind == "block":
        network = from_diffusion(demur.load(begin).network, *next(drawn))
    else:
        network = new_network(tokenizer, bidirectional=kind == "diffusion")
    network.set_attn_implementation("eager")  # on CPUs it trains faster than the fused kernels here
    network.float().train()
    objective = {"ar": autoregressive_loss, "diffusion": diffusion_loss, "block": block_loss}[kind]
    optimizers = block_optimizers(network) if kind == "block" else optimizers_of(network)
    warm_up = BLOCK_WARM_UP if kind == "block" else WARM_UP
    schedulers = [torch.optim.lr_scheduler.LambdaLR(one, lambda step: pace(step, steps, warm_up)) for one in optimizers]
    started, running = time.perf_counter(), 0.0
    for step, batch in zip(range(1, steps + 1), drawn, strict=False):
        with torch.autocast("cpu", torch.bfloat16, enabled=torch.ops.mkldnn._is_mkldnn_bf16_supported()):
            loss = objective(network, *batch, tokenizer)
        loss.backward()
        for one in (*optimizers, *schedulers):
            one.step()
        network.zero_grad(set_to_none=True)
        running = loss.item() if step == 1 else 0.98 * running + 0.02 * loss.item()
        if step % 20 == 0:
            sys.stdout.write(f"{kind} seed {seed}: step {step}, loss {running:.4f}, ")
            sys.stdout.write(f"{time.perf_counter() - started:.0f} s\n")
            sys.stdout.flush()
    if kind == "block":
        save_sdar(network, tokenizer, out, RESPONSE, LENGTH)
    else:
        (save_llada if kind == "diffusion" else save_llama)(network, tokenizer, out, RESPONSE)


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the pair, the same for every seed of training."""
    draws = random.Random(0)
    asked = [training_request(draws) for _ in range(20_000)]
    return train_tokenizer([one.text for one in asked] + [reply(draws, one, _words) for one in asked])


def _words(text: str) -> int:
    return len(text.split()) + 1


def new_network(tokenizer: PreTrainedTokenizerFast, *, bidirectional: bool) -> LlamaForCausalLM:
    """A network with random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    network = LlamaForCausalLM(config)
    return make_bidirectional(network) if bidirectional else network


def optimizers_of(network: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for everything else."""
    matrices = [p for name, p in network.named_parameters() if p.ndim == 2 and "embed_tokens" not in name]
    taken = {id(p) for p in matrices}
    others = [p for p in network.parameters() if id(p) not in taken]
    return [
        torch.optim.Muon(matrices, lr=MUON_RATE, weight_decay=0.01),
        torch.optim.AdamW(others, lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def block_optimizers(network: PreTrainedModel) -> list[torch.optim.Optimizer]:
    """AdamW for all weights, at a rate for weights that are trained already."""
    return [torch.optim.AdamW(network.parameters(), lr=BLOCK_RATE, betas=(0.9, 0.98), weight_decay=0.0)]


def pace(step: int, steps: int, warm_up: int) -> float:
    """The share of the learning rate at a step: a linear rise, a plateau, a linear fall over the last half."""
    return min(1.0, (step + 1) / warm_up, 2 * (steps - step) / steps)


def batches(draws: random.Random, tokenizer: PreTrainedTokenizerFast, size: int) -> Iterator[tuple[torch.Tensor, ...]]:
    """Prompt ids and mask ``[size, prompt]`` (padded on the left), reply ids ``[size, RESPONSE]``, without end.

    A reply is filled up with end-of-sequence, as LLaDA's are.
    """
    chat = ChatFormat.of(tokenizer)

    @cache
    def measure(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    def conversation(asked: Request) -> tuple[list[int], list[int]]:
        ids = tokenizer(reply(draws, asked, measure), add_special_tokens=False)["input_ids"]
        return chat.encode(tokenizer, asked.text), ids + [tokenizer.eos_token_id] * (RESPONSE - len(ids))

    while True:
        pool = sorted((conversation(training_request(draws)) for _ in range(POOL)), key=lambda one: len(one[0]))
        parts = [pool[start : start + size] for start in range(0, POOL, size)]
        draws.shuffle(parts)
        for part in parts:
            longest = max(len(ids) for ids, _ in part)
            padding = [longest - len(ids) for ids, _ in part]
            prompts = [[tokenizer.pad_token_id] * n + ids for n, (ids, _) in zip(padding, part, strict=True)]
            mask = [[0] * n + [1] * (longest - n) for n in padding]
            yield torch.tensor(prompts), torch.tensor(mask), torch.tensor([ids for _, ids in part])


def autoregressive_loss(
    network: LlamaForCausalLM,
    prompts: torch.Tensor,
    mask: torch.Tensor,
    replies: torch.Tensor,
    tokenizer: PreTrainedTokenizerFast,
) -> torch.Tensor:
    """Cross-entropy of the reply and its first end-of-sequence."""
    read = torch.cat([prompts, replies[:, :-1]], dim=1)
    attended = torch.cat([mask, torch.ones_like(replies[:, :-1])], dim=1)
    states = _states(network, read, attended)[:, prompts.shape[1] - 1 :]
    ended = (replies == tokenizer.eos_token_id).cumsum(dim=1) > 1
    return cross_entropy(network.lm_head(states).flatten(0, 1).float(), replies.masked_fill(ended, IGNORED).flatten())


def diffusion_loss(
    network: LlamaForCausalLM,
    prompts: torch.Tensor,
    mask: torch.Tensor,
    replies: torch.Tensor,
    tokenizer: PreTrainedTokenizerFast,
) -> torch.Tensor:
    """LLaDA's loss with exactly k of the reply's tokens masked, k spread evenly over 1..RESPONSE, weighted by 1/k."""
    counts = (torch.arange(len(replies)) * RESPONSE // len(replies) + 1)[torch.randperm(len(replies))]
    hidden = torch.rand(replies.shape).argsort(dim=1).argsort(dim=1) < counts.unsqueeze(1)
    seen = torch.cat([prompts, replies.masked_fill(hidden, tokenizer.mask_token_id)], dim=1)
    states = _states(network, seen, torch.cat([mask, torch.ones_like(replies)], dim=1))[:, prompts.shape[1] :]
    losses = cross_entropy(network.lm_head(states[hidden]).float(), replies[hidden], reduction="none")
    return (losses / counts.unsqueeze(1).expand_as(hidden)[hidden]).sum() / len(replies)


def _states(network: LlamaForCausalLM, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    output = network.model(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False)
    states: torch.Tensor = output.last_hidden_state
    return states


if __name__ == "__main__":
    main()
