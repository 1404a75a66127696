"""Prompts a second: plain vLLM, `record` with the engine vllm, `generate`, and demur's own loop, in one run, in turns.

In: a model and prompts. Out: a file with seconds a prompt of every round, wall and processor, medians, and ratios
within a round; it is written again after each. vLLM is started once before the first round, so that its start is not
counted.

    build/vllm/bin/python benchmarks/engines.py MODEL prompts.jsonl
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import demur
from demur.engines.vllm.engine import VllmEngine
from demur.prompts import read_prompts
from demur.recording.generate import encode
from machine import RESULTS, write_result
from recording import plain_generate

PLAIN, ENGINE, GENERATE, LOOP = "plain vLLM", "record, engine vllm", "generate", "record"
LAYERS = ("quarter", "middle", "last")


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Wall and processor seconds, those of other threads of this process included."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompts")
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "engines.json")
    return parser.parse_args()


def summed_up(rounds: Sequence[dict[str, Any]], prompts: int) -> dict[str, Any]:
    """Medians of seconds a prompt, and of ratios within a round."""
    kinds = ("wall", "processor")
    seconds = {
        way: {kind: round(median(one[way][kind] for one in rounds) / prompts, 4) for kind in kinds}
        for way in (PLAIN, ENGINE, GENERATE, LOOP)
    }
    ratios = {
        f"{over} / {under}": {
            kind: round(median(one[over][kind] / one[under][kind] for one in rounds), 3) for kind in kinds
        }
        for over, under in ((ENGINE, PLAIN), (LOOP, ENGINE), (LOOP, GENERATE))
    }
    return {"seconds_a_prompt": seconds, "ratios": ratios, "rounds": list(rounds)}


def compared(mine: demur.Recording, theirs: demur.Recording) -> dict[str, Any]:
    """In how many generations all tokens are equal, and by how much the states of those differ at most."""
    chosen = [[one.steps_tokens(row).predicted[-1] for row in range(len(one.table))] for one in (mine, theirs)]
    equal = [row for row, pair in enumerate(zip(*chosen, strict=True)) if np.array_equal(*pair)]
    apart = max((float(np.abs(mine.phi[row] - theirs.phi[row]).max()) for row in equal), default=None)
    return {"equal_tokens": len(equal), "phi_difference_of_those": apart}


def main() -> None:
    args = parsed()
    model = demur.load(args.model, device="cpu", dtype=args.dtype)
    prompts = read_prompts(args.prompts)[: args.limit]
    options = {"steps": args.steps, "layers": LAYERS, "batch_size": args.batch_size, "progress": False}
    encoded = encode(model, prompts, model.default_sampler(steps=args.steps))
    facts = {"model": Path(args.model).name, "dtype": args.dtype, "prompts": len(prompts), "steps": args.steps}
    with VllmEngine() as engine:
        recorded = demur.record(model, prompts, engine=engine, **options)  # starts vLLM
        same = compared(demur.record(model, prompts, **options), recorded)
        llm = engine._llm

        def plain() -> None:
            from vllm import SamplingParams

            parameters = SamplingParams(
                temperature=0, max_tokens=args.steps, stop_token_ids=model.eos_token_ids, detokenize=False
            )
            llm.generate([{"prompt_token_ids": one.ids.tolist()} for one in encoded], parameters, use_tqdm=False)

        ways: dict[str, Callable[[], object]] = {
            PLAIN: plain,
            ENGINE: lambda: demur.record(model, prompts, engine=engine, **options),
            GENERATE: lambda: plain_generate(model, prompts, args.steps, args.batch_size),
            LOOP: lambda: demur.record(model, prompts, **options),
        }
        plain()
        rounds: list[dict[str, Any]] = []
        for _ in range(args.rounds):
            rounds.append({name: timed(way) for name, way in ways.items()} | {"load": os.getloadavg()[0]})
            result = {**facts, "vllm": engine.versions["vllm"], **same, **summed_up(rounds, len(prompts))}
            write_result(args.out, result)


if __name__ == "__main__":
    main()
