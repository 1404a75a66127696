"""Seconds a prompt: transformers' generate, demur's own loop, plain vLLM, and `record` with the engine vllm.

Every round runs all four in turn (A B C D A B C D …) on the same prompts, in one process with the same number of
threads. vLLM is started before the first round. A run measures one dtype and adds it to the file of results; wall and
processor seconds are kept of every round.

    build/vllm/bin/python benchmarks/engines.py MODEL prompts.jsonl --dtype bfloat16
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import demur
from demur.engines.vllm.engine import VllmEngine
from demur.models import Model
from demur.prompts import read_prompts
from demur.recording.generate import Encoded, encode, pad_left
from machine import RESULTS, write_result

GENERATE, LOOP, VLLM, RECORD = "transformers generate", "demur record", "vLLM", "demur record --engine vllm"
RATIOS = {
    "record with vLLM over vLLM": (RECORD, VLLM),
    "demur's loop over record with vLLM": (LOOP, RECORD),
    "demur's loop over generate": (LOOP, GENERATE),
}


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


def timed(work: Callable[[], object]) -> dict[str, float]:
    """Wall and processor seconds, those of other threads of this process included."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return {"wall": time.perf_counter() - wall, "processor": time.process_time() - processor}


def generated(model: Model, encoded: Sequence[Encoded], steps: int, batch_size: int) -> None:
    """What plain transformers does with these prompts, longest first, as demur's loop takes them."""
    ordered = sorted(encoded, key=lambda one: -len(one.ids))
    for start in range(0, len(ordered), batch_size):
        ids, mask = pad_left([one.ids for one in ordered[start : start + batch_size]], model.pad_token_id)
        options = {"eos_token_id": model.eos_token_ids, "pad_token_id": model.pad_token_id}
        with torch.no_grad():
            model.network.generate(input_ids=ids, attention_mask=mask, max_new_tokens=steps, do_sample=False, **options)


def answered(llm: Any, model: Model, encoded: Sequence[Encoded], steps: int) -> None:
    """What plain vLLM does with these prompts."""
    from vllm import SamplingParams

    options = {"stop_token_ids": model.eos_token_ids, "detokenize": False}
    parameters = SamplingParams(temperature=0, max_tokens=steps, **options)
    llm.generate([{"prompt_token_ids": one.ids.tolist()} for one in encoded], parameters, use_tqdm=False)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    model = demur.load(args.model, device="cpu", dtype=args.dtype)
    prompts = read_prompts(args.prompts)[: args.limit]
    encoded = encode(model, prompts, model.default_sampler(steps=args.steps))
    layers = ("quarter", "middle", "last")
    options = {"steps": args.steps, "layers": layers, "batch_size": args.batch_size, "progress": False}
    with VllmEngine() as engine:
        recorded = demur.record(model, prompts, engine=engine, **options)  # starts vLLM
        mine = demur.record(model, prompts, **options)
        ways: dict[str, Callable[[], object]] = {
            GENERATE: lambda: generated(model, encoded, args.steps, args.batch_size),
            LOOP: lambda: demur.record(model, prompts, **options),
            VLLM: lambda: answered(engine._llm, model, encoded, args.steps),
            RECORD: lambda: demur.record(model, prompts, engine=engine, **options),
        }
        for way in (GENERATE, VLLM):  # the others have run once
            ways[way]()
        rounds = [{name: timed(way) for name, way in ways.items()} for _ in range(args.rounds)]
    same = [mine.steps_tokens(row).predicted[-1].tolist() for row in range(len(prompts))]
    theirs = [recorded.steps_tokens(row).predicted[-1].tolist() for row in range(len(prompts))]
    equal = [one == other for one, other in zip(same, theirs, strict=True)]
    apart = [float(np.abs(mine.phi[row] - recorded.phi[row]).max()) for row, alike in enumerate(equal) if alike]
    return {
        **{name: getattr(args, name) for name in ("limit", "steps", "batch_size")},
        "layers": list(layers),
        "vllm": engine.versions["vllm"],
        "seconds_a_prompt": {kind: medians(rounds, kind, len(prompts)) for kind in ("wall", "processor")},
        "ratios": {kind: ratios(rounds, kind) for kind in ("wall", "processor")},
        "prompts_with_equal_tokens": sum(equal),
        "phi_difference_of_those": max(apart, default=None),
        "rounds": rounds,
    }


def medians(rounds: Sequence[dict[str, dict[str, float]]], kind: str, prompts: int) -> dict[str, float]:
    return {way: round(median(one[way][kind] for one in rounds) / prompts, 4) for way in rounds[0]}


def ratios(rounds: Sequence[dict[str, dict[str, float]]], kind: str) -> dict[str, float]:
    """Medians over the rounds of the ratio within a round."""
    return {
        name: round(median(one[over][kind] / one[under][kind] for one in rounds), 3)
        for name, (over, under) in RATIOS.items()
    }


def main() -> None:
    args = parsed()
    runs = json.loads(args.out.read_text())["runs"] if args.out.exists() else {}
    write_result(args.out, {"model": Path(args.model).name, "runs": {**runs, args.dtype: measured(args)}})


if __name__ == "__main__":
    main()
