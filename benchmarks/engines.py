"""Prompts a second: plain vLLM, `record` with the engine vllm, and demur's own loop, in one run, in turns.

In: a model and prompts. Out: seconds a prompt of every turn, wall and processor, and medians. vLLM is started once
before the first turn, so that its start is not counted.

    build/vllm/bin/python benchmarks/engines.py MODEL prompts.jsonl --dtype bfloat16
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from statistics import median

import numpy as np

import demur
from demur.engines.vllm.engine import VllmEngine
from demur.prompts import read_prompts
from demur.recording.generate import encode

TURNS = 3


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and processor seconds, those of other threads of this process included."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompts")
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dtype", default="float32")
    asked = parser.parse_args()
    model = demur.load(asked.model, device="cpu", dtype=asked.dtype)
    prompts = read_prompts(asked.prompts)[: asked.limit]
    options = {"steps": asked.steps, "layers": ("quarter", "middle", "last"), "batch_size": asked.batch_size}
    sampler = model.default_sampler(steps=asked.steps)
    encoded = encode(model, prompts, sampler)
    with VllmEngine() as engine:
        recorded = demur.record(model, prompts, engine=engine, **options)  # starts vLLM
        llm = engine._llm

        def plain() -> None:
            from vllm import SamplingParams

            parameters = SamplingParams(
                temperature=0, max_tokens=asked.steps, stop_token_ids=model.eos_token_ids, detokenize=False
            )
            llm.generate([{"prompt_token_ids": one.ids.tolist()} for one in encoded], parameters, use_tqdm=False)

        ways: dict[str, Callable[[], object]] = {
            "plain vLLM": plain,
            "record, engine vllm": lambda: demur.record(model, prompts, engine=engine, **options),
            "record": lambda: demur.record(model, prompts, **options),
        }
        for way in ways.values():
            way()
        turns: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for _ in range(TURNS):
            for name, way in ways.items():
                turns[name].append(timed(way))
    mine = demur.record(model, prompts, **options)
    found = {
        name: {
            "wall": [round(wall / len(prompts), 4) for wall, _ in taken],
            "processor": [round(spent / len(prompts), 4) for _, spent in taken],
            "median_wall": round(median(wall for wall, _ in taken) / len(prompts), 4),
            "median_processor": round(median(spent for _, spent in taken) / len(prompts), 4),
        }
        for name, taken in turns.items()
    }
    same = bool((mine.table["text"] == recorded.table["text"]).all())
    difference = float(np.abs(mine.phi - recorded.phi).max()) if same else None
    print(
        json.dumps(
            {"prompts": len(prompts), "seconds_a_prompt": found, "same_texts": same, "phi": difference}, indent=2
        )
    )


if __name__ == "__main__":
    main()
