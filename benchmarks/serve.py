"""What a guard costs a server: throughput guarded against unguarded, and the time to the first text.

Each round runs the same requests unguarded and guarded, in turns (A B, B A, ...), at 1, 8 and 32 at once, on the engine
that `demur serve` takes. The guard looks four times and never stops, so that both make the same answers. Requests go
through everything but HTTP. Processor seconds of the process are counted beside the clock, which other work on the
machine disturbs.

    .venv/bin/python benchmarks/serve.py Qwen/Qwen2.5-0.5B-Instruct:128 demur/tiny-diffusion:32 --dtype bfloat16
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import demur
from demur.guards import DirectionGuard, StreamingGuard, states_of
from demur.models import Model
from demur.serve import Settings, Watched, make_app
from demur.serve.guards import Guards
from demur.serve.schema import ChatRequest
from machine import RESULTS, write_result

RANDOM: dict[str, dict[str, int]] = {
    "random-33m": {
        "hidden_size": 512,
        "intermediate_size": 1408,
        "num_hidden_layers": 10,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
    },
    "random-1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
}
"""Llamas of random weights: a small one, and one of the shape of Llama-3.2-1B but for its vocabulary."""
LOOKS = tuple((look + 1) / 4 for look in range(4))
APART = 0.03
"""Largest difference of both numbers of tokens: in bfloat16 answers may differ with the requests beside them."""


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "models", nargs="*", default=["random-33m:64", "demur/tiny-diffusion:32"], help="MODEL:STEPS of its answers"
    )
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=1, help="a round, for each of those that run at once")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "serve.json")
    return parser.parse_args()


def loaded(name: str, dtype: str, device: str) -> Model:
    """A model by name, or a Llama of random weights with a tiny model's tokenizer."""
    if name not in RANDOM:
        return demur.load(name, device=device, dtype=dtype)
    from transformers import LlamaConfig, LlamaForCausalLM

    words = demur.load("demur/tiny-ar", device="cpu").tokenizer
    torch.manual_seed(0)
    config = LlamaConfig(
        **RANDOM[name], vocab_size=len(words), max_position_embeddings=1024, bos_token_id=None, eos_token_id=None
    )
    return demur.load(LlamaForCausalLM(config).eval().to(device, getattr(torch, dtype)), tokenizer=words)


def guarding(model: Model, steps: int) -> list[Watched]:
    """A guard on the middle and the last layer that judges everything and stops nothing."""
    sampler = model.default_sampler(steps)
    prompts = [f"tell me about number {number}" for number in range(20)]
    recording = demur.record(model, prompts, sampler, layers=("middle", "last"), batch_size=20)
    states = states_of(recording, LOOKS)
    direction = DirectionGuard(places=LOOKS).fit(states, harmful=states)
    guard = StreamingGuard(alpha=0.05, side="high")
    guard.fit(direction.place_errors(states), calibration=direction.place_errors(states))
    guard.threshold_, guard.offset_ = 1e9, -1e9
    return [Watched("direction", direction, guard)]


async def timed(model: Model, watched: list[Watched], steps: int, at_once: int, count: int) -> dict[str, float]:
    """Tokens a second of one run of `count` requests, by the clock and by the processor; median time to first text."""
    app = make_app(model, watched, Settings(slots=at_once, max_tokens=steps))
    gate, firsts, made = asyncio.Semaphore(at_once), [], 0
    async with app.router.lifespan_context(app):
        chat = app.state.chat

        async def one(number: int, most: int = steps) -> int:
            message = {"role": "user", "content": f"tell me about number {number}"}
            asked = {"model": model.name, "messages": [message], "max_tokens": most, "stream": True}
            body = ChatRequest.model_validate(asked)
            async with gate:
                began, tokens = time.perf_counter(), 0
                call = await chat.begin(body)
                async for _, piece in chat.pieces(call):
                    if piece.text and len(firsts) <= number:
                        firsts.append(time.perf_counter() - began)
                    tokens = piece.tokens or tokens
            return tokens

        await one(-1, 2)
        clock, cpu = time.perf_counter(), time.process_time()
        made = sum(await asyncio.gather(*(one(number) for number in range(count))))
        clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    first = statistics.median(firsts) if firsts else float("nan")
    return {"tokens": made, "per_second": made / clock, "per_cpu_second": made / cpu, "first_text_seconds": first}


def judging(model: Model, watched: list[Watched], steps: int, at_once: int) -> float:
    """Processor seconds a pass that guards take to judge `at_once` requests: the least of ten answers' means."""
    guards, names = Guards(model, watched, at_once), [str(number) for number in range(at_once)]
    states = torch.randn(at_once, len(guards.layers), model.width, device=model.device)
    taken = []
    for _ in range(10):
        for name in names:
            guards.open(name)
        began = time.process_time()
        for _ in range(steps):
            guards.take(names, states)
        taken.append((time.process_time() - began) / steps)
        for name in names:
            guards.close(name)
    return min(taken)


def measured(name: str, steps: int, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """What was found of a model, again after every round."""
    model = loaded(name, args.dtype, args.device)
    watched = guarding(model, steps)
    rounds: dict[int, list[dict[str, Any]]] = {at_once: [] for at_once in args.at_once}
    for number in range(args.rounds):
        for at_once, before in rounds.items():
            turns: list[tuple[str, list[Watched]]] = [("plain", []), ("guarded", watched)]
            ways: dict[str, Any] = {
                way: asyncio.run(timed(model, one, steps, at_once, at_once * args.requests))
                for way, one in (turns if number % 2 == 0 else turns[::-1])
            }
            plain, guarded = (ways[way]["tokens"] for way in ("plain", "guarded"))
            if abs(guarded / plain - 1) > (APART if args.dtype != "float32" else 0):
                raise SystemExit(f"{name}: guarded and unguarded made different numbers of tokens: {ways}")
            before.append({**ways, "load": os.getloadavg()[0]})
            print(f"{name}, {at_once} at once: {before[-1]}", file=sys.stderr, flush=True)
        yield {
            "family": model.family,
            "dtype": args.dtype,
            "steps": steps,
            **{f"{at_once} at once": summed_up(model, watched, steps, at_once, rounds[at_once]) for at_once in rounds},
        }


def compared(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds, of ratios within a round and of the time to the first text."""
    ratios = {
        kind: statistics.median(one["guarded"][kind] / one["plain"][kind] for one in rounds)
        for kind in ("per_second", "per_cpu_second")
    }
    firsts = {way: statistics.median(one[way]["first_text_seconds"] for one in rounds) for way in ("plain", "guarded")}
    return {"guarded_over_plain": ratios, "first_text_seconds": firsts}


def summed_up(
    model: Model, watched: list[Watched], steps: int, at_once: int, rounds: list[dict[str, Any]]
) -> dict[str, Any]:
    """Medians over the rounds, and the rounds."""
    found = compared(rounds)
    if model.traits.left_to_right:  # each pass of the fastest plain round makes a token for each request
        passes_a_second = max(one["plain"]["per_cpu_second"] for one in rounds) / at_once
        found["judging_share_of_a_pass"] = judging(model, watched, steps, at_once) * passes_a_second
    return {**found, "rounds": rounds}


def main() -> None:
    args = parsed()
    torch.set_num_threads(1)
    models: dict[str, Any] = {}
    how = "per_cpu_second counts the processor seconds of the process, which other work on the machine disturbs least"
    for one in args.models:
        name, _, steps = one.rpartition(":")
        for found in measured(name, int(steps), args):
            models[Path(name).name if Path(name).is_dir() else name] = found
            write_result(args.out, {"hold": "look", "threads": 1, "device": args.device, "how": how, "models": models})


if __name__ == "__main__":
    main()
