"""What a guard costs a server: throughput guarded against unguarded, and the time to the first text.

Each round runs the same requests unguarded and guarded, in turn (A B A B), at 1, 8 and 32 at once, on the engine that
`demur serve` takes. The guard looks four times and never stops, so that both make the same tokens. Requests go through
everything but HTTP. CPU seconds are counted beside the clock, which other work on the machine disturbs.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import demur
from demur.guards import DirectionGuard, StreamingGuard, states_of
from demur.models import Model
from demur.serve import Settings, Watched, make_app
from demur.serve.schema import ChatRequest
from machine import RESULTS, write_result

RANDOM = "random-33m"
LOOKS = tuple((look + 1) / 4 for look in range(4))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=[RANDOM, "demur/tiny-diffusion"])
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests", type=int, default=32, help="a round; at one at a time a quarter of them")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=RESULTS / "serve.json")
    return parser.parse_args()


def loaded(name: str) -> Model:
    """A model by name, or a Llama of 33 million random weights with a tiny model's tokenizer."""
    if name != RANDOM:
        return demur.load(name)
    from transformers import LlamaConfig, LlamaForCausalLM

    words = demur.load("demur/tiny-ar").tokenizer
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=512, intermediate_size=1408, num_hidden_layers=10, num_attention_heads=8,
        num_key_value_heads=8, max_position_embeddings=1024, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    return demur.load(LlamaForCausalLM(config).eval(), tokenizer=words)


def guarding(model: Model, steps: int) -> list[Watched]:
    """A guard on the middle and the last layer that judges everything and stops nothing."""
    sampler = model.default_sampler(steps)
    prompts = [f"tell me about number {number}" for number in range(40)]
    recording = demur.record(model, prompts, sampler, layers=("middle", "last"))
    states = states_of(recording, LOOKS)
    direction = DirectionGuard(places=LOOKS).fit(states, harmful=states)
    guard = StreamingGuard(alpha=0.05, side="high")
    guard.fit(direction.place_errors(states), calibration=direction.place_errors(states))
    guard.threshold_ = 1e9
    return [Watched("direction", direction, guard)]


async def timed(model: Model, watched: list[Watched], args: argparse.Namespace, at_once: int) -> dict[str, float]:
    """Tokens a second of one run, by the clock and by the CPU, and the median time to the first text."""
    settings = Settings(slots=at_once, max_tokens=args.steps)
    app = make_app(model, watched, settings)
    count = max(at_once, args.requests // (4 if at_once == 1 else 1))
    gate, firsts, made = asyncio.Semaphore(at_once), [], 0
    async with app.router.lifespan_context(app):
        chat = app.state.chat

        async def one(number: int) -> int:
            message = {"role": "user", "content": f"tell me about number {number}"}
            body = ChatRequest.model_validate({"model": model.name, "messages": [message], "stream": True})
            async with gate:
                began, tokens = time.perf_counter(), 0
                call = await chat.begin(body)
                async for _, piece in chat.pieces(call):
                    if piece.text and len(firsts) <= number:
                        firsts.append(time.perf_counter() - began)
                    tokens = piece.tokens or tokens
            return tokens

        await one(-1)
        clock, cpu = time.perf_counter(), time.process_time()
        made = sum(await asyncio.gather(*(one(number) for number in range(count))))
        clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    first = statistics.median(firsts) if firsts else float("nan")
    return {"tokens": made, "per_second": made / clock, "per_cpu_second": made / cpu, "first_text_seconds": first}


def measured(name: str, args: argparse.Namespace) -> dict[str, Any]:
    model = loaded(name)
    watched = guarding(model, args.steps)
    found: dict[str, Any] = {"family": model.family}
    for at_once in args.at_once:
        rounds: list[dict[str, Any]] = []
        for number in range(args.rounds + 1):  # the first one warms up
            ways = {
                way: asyncio.run(timed(model, one, args, at_once)) for way, one in (("plain", []), ("guarded", watched))
            }
            if len({one["tokens"] for one in ways.values()}) > 1:
                raise SystemExit(f"{name}: guarded and unguarded made different numbers of tokens: {ways}")
            if number:
                rounds.append(ways)
        ratios = {
            kind: statistics.median(one["guarded"][kind] / one["plain"][kind] for one in rounds)
            for kind in ("per_second", "per_cpu_second")
        }
        firsts = {
            way: statistics.median(one[way]["first_text_seconds"] for one in rounds) for way in ("plain", "guarded")
        }
        found[f"{at_once} at once"] = {"guarded_over_plain": ratios, "first_text_seconds": firsts, "rounds": rounds}
    return found


def main() -> None:
    args = parsed()
    torch.set_num_threads(1)
    models = {name: measured(name, args) for name in args.models}
    write_result(args.out, {"steps": args.steps, "requests": args.requests, "hold": "look", "models": models})


if __name__ == "__main__":
    main()
