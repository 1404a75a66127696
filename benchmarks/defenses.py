"""What defenses cost beside the generation they defend, all of them in one run and on the same prompts.

A study's anchors and guards, and a few of its prompts of every test set. In every round the ways run one after the
other, the first of one round being the last of the next: generating (`demur.record`), each defense on what was
generated, and generating under the streaming guard along the direction (`generate_guarded`), which is compared with the
same call and a limit that nothing reaches, one prompt and a batch at a time. Ratios are taken within a round, and their
median over rounds is reported; a round that is not counted goes first. The perplexity filter's limit is set beforehand
on 20 prompts: it does not change what a prompt costs.

    python benchmarks/defenses.py MODEL STUDY [--count 16] [--batch-size 16] [--rounds 5]
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import demur
from demur.defenses import Defense, GuardDefense, PerplexityFilter, SelfExamine, generate_guarded
from demur.guards import StreamingGuard, load_guard
from demur.models import Model
from demur.prompts import Prompt
from demur.studies.study.detectors import (
    DIRECTION_FILE,
    GUARD_FILE,
    LOOKS_FILE,
    STREAMING_DIRECTION_FILE,
    STREAMING_FILE,
)
from machine import RESULTS, write_result

GROUPS = ("test_harmless", "test_harmful", "test_attacks")
FILES = (GUARD_FILE, DIRECTION_FILE, STREAMING_FILE, LOOKS_FILE, STREAMING_DIRECTION_FILE)
RUN_A_MODEL = ("perplexity", "self-examine")


def prompts_of(study: Path, count: int) -> dict[str, list[Prompt]]:
    """`count` prompts of every test set, evenly spaced."""
    found = {}
    for group in GROUPS:
        rows = demur.Recording(study / "recordings" / group).table[["id", "prompt"]].to_dict("records")
        places = np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))
        found[group] = [Prompt(rows[place]["id"], rows[place]["prompt"]) for place in places]
    return found


def measure(model: Model, study: Path, count: int, batch_size: int, rounds: int) -> dict[str, Any]:
    anchors = demur.Anchors.load(study / "anchors.safetensors")
    sri, direction, streaming, looks, on_direction = (load_guard(study / name) for name in FILES)
    never = copy.deepcopy(on_direction)
    never.threshold_ = np.inf
    calibration = demur.Recording(study / "recordings" / "guard_calibration_harmless").table["prompt"].tolist()[:20]
    defenses: list[Defense] = [
        PerplexityFilter(model).fit(calibration),
        SelfExamine(model, batch_size=batch_size),
        GuardDefense(sri, anchors),
        GuardDefense(direction),
        GuardDefense(streaming, anchors),
        GuardDefense(on_direction, looks),
    ]
    steps = int(anchors.provenance.sampler["steps"])
    grouped = prompts_of(study, count)
    everyone = [prompt for prompts in grouped.values() for prompt in prompts]
    asked = [prompt.prompt for prompt in everyone]

    def record(prompts: list[Prompt]) -> demur.Recording:
        return demur.record(model, prompts, steps=steps, layers=anchors.layers, batch_size=batch_size, progress=False)

    recording = record(everyone)
    texts = recording.table["text"].tolist()
    ways: dict[str, Callable[[], Any]] = {"generation": lambda: record(everyone)}
    ways |= {one.name: lambda one=one: one(asked, texts, recording).seconds.sum() for one in defenses}
    stopped: dict[str, int] = {}

    def guarded(group: str, size: int, guard: StreamingGuard) -> None:
        found = generate_guarded(model, grouped[group], looks, guard, batch_size=size)
        if guard is on_direction:
            stopped[group] = int((found["stopped_at"] > 0).sum())

    sizes = (1, batch_size)
    for group, size in itertools.product(grouped, sizes):
        for what, guard in (("guarded", on_direction), ("unguarded", never)):
            ways[f"{what} {group}, {size} at a time"] = lambda one=(group, size, guard): guarded(*one)
    kept: list[dict[str, float]] = []
    for number in range(rounds + 1):
        order = list(ways) if number % 2 else list(reversed(ways))
        kept.append({name: timed(ways[name]) for name in order})
        print(f"round {number} of {rounds}", flush=True)
    kept = kept[1:]
    whole = [one["generation"] for one in kept]
    shares = {one.name: median(row[one.name] / base for row, base in zip(kept, whole, strict=True)) for one in defenses}
    return {
        "prompts": {group: len(prompts) for group, prompts in grouped.items()},
        "steps": steps,
        "batch_size": batch_size,
        "seconds_per_prompt": {name: median(row[name] for row in kept) / len(everyone) for name in shares}
        | {"generation": median(whole) / len(everyone)},
        "overhead": shares,
        "cheapest_model_over_sri_guard": median(
            min(row[name] for name in RUN_A_MODEL) / row["SRIGuard"] for row in kept
        ),
        "guarded_over_unguarded": {
            f"{group}, {size} at a time": median(
                row[f"guarded {group}, {size} at a time"] / row[f"unguarded {group}, {size} at a time"] for row in kept
            )
            for group, size in itertools.product(grouped, sizes)
        },
        "guarded_stopped": stopped,
        "rounds": kept,
    }


def timed(work: Callable[[], Any]) -> float:
    """Seconds of a call: those that a defense counts itself, else those that pass."""
    began = time.perf_counter()
    found = work()
    return float(found) if isinstance(found, float) else time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("study", type=Path, help="folder of a finished study of this model")
    parser.add_argument("--count", type=int, default=16, help="prompts of each test set")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "defenses.json")
    given = parser.parse_args()
    model = demur.load(given.model)
    write_result(given.out, measure(model, given.study, given.count, given.batch_size, given.rounds))


if __name__ == "__main__":
    main()
