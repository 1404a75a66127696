"""Does the block length trade recovery against speed? The two bundled diffusion models at block lengths 1 to 32.

The same harmful prompts, plain and wrapped, under the dynamic rule: a step commits whatever is surer than a threshold.
Of each block length: how often a harmful text that was predicted is taken back (HRR), how often the answer refuses
(RR), and how many steps an answer took. demur/tiny-diffusion takes any block length; demur/tiny-block was trained with
blocks of 8, and sees nothing behind its block. One training seed of each.

    python benchmarks/block_length.py
    python benchmarks/block_length.py --draw docs/figures/block-length.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import demur
from demur.dynamics import harmful_remasking_rate, wilson
from demur.models import Model
from demur.samplers import BlockDiffusion, MaskedDiffusion, Sampler
from demur.studies.demo.run import JUDGE
from demur.studies.study.prompt_sets import first_of_each, read_sets
from demur.studies.study.recovery import step_verdicts
from machine import RESULTS, write_result

LENGTHS, RESPONSE, THRESHOLD = (1, 2, 4, 8, 16, 32), 32, 0.9
TESTED = {"test_harmful": 20, "test_attacks": 6}
"""Prompts of each set, of the attacks for each."""
MODELS = ("demur/tiny-diffusion", "demur/tiny-block")
TITLES = {"HRR": "harmful text taken back (HRR)", "RR": "answers that refuse (RR)", "steps": "steps an answer took"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "block-length.json")
    parser.add_argument("--draw", type=Path, help="draw the figure from what OUT holds already")
    given = parser.parse_args()
    if given.draw:
        draw(json.loads(given.out.read_text(encoding="utf-8"))["rows"], given.draw)
        return
    sets = read_sets(Path("demur/toy"), None)
    prompts = [one for name, size in TESTED.items() for one in first_of_each(sets[name], size)]
    rows = [row for name in MODELS for row in measure(demur.load(name, dtype="float32"), prompts)]
    write_result(given.out, {"threshold": THRESHOLD, "prompts": TESTED, "training_seeds": 1, "rows": rows})


def measure(model: Model, prompts: list[demur.Prompt]) -> Iterator[dict[str, Any]]:
    """Rows of every block length."""
    for length in LENGTHS:
        recording = demur.record(model, prompts, sampler_of(model, length), batch_size=64)
        _, verdicts = step_verdicts(recording, JUDGE)
        refused = recording.table["refused"].to_numpy(dtype=bool)
        found = {
            "HRR": harmful_remasking_rate(verdicts, missing="exclude"),
            "RR": wilson(int(refused.sum()), len(refused)),
        }
        for measured, rate in found.items():
            yield {"model": model.name, "block_length": length, "measure": measured, **vars(rate)}
        steps = np.array([steps_taken(recording, row) for row in range(len(recording))])
        half = 1.96 * steps.std(ddof=1) / np.sqrt(len(steps))
        mean = {"value": float(steps.mean()), "low": float(steps.mean() - half), "high": float(steps.mean() + half)}
        yield {"model": model.name, "block_length": length, "measure": "steps", **mean, "count": len(steps)}


def sampler_of(model: Model, length: int) -> Sampler:
    """The model's sampler with blocks of this length, and as many steps as any answer can need."""
    if model.samplers and model.samplers[0] == "BlockDiffusion":
        return BlockDiffusion(response_length=RESPONSE, block_length=length, schedule="dynamic", threshold=THRESHOLD)
    return MaskedDiffusion(RESPONSE, RESPONSE, block_length=length, schedule="dynamic", threshold=THRESHOLD)


def steps_taken(recording: demur.Recording, row: int) -> int:
    """Steps that committed a token; under the dynamic rule every step that does anything does."""
    committed = recording.steps_tokens(row).is_committed.sum(axis=1)
    return int((np.diff(committed, prepend=0) > 0).sum())


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, (measure, title) in zip(axes, TITLES.items(), strict=True):
        for place, name in enumerate(MODELS):
            chosen = [row for row in rows if row["model"] == name and row["measure"] == measure]
            x = np.array([row["block_length"] for row in chosen]) * (1.04 if place else 0.96)
            value, low, high = (np.array([row[key] for row in chosen]) for key in ("value", "low", "high"))
            axis.errorbar(x, value, [value - low, high - value], marker="os"[place], capsize=2, label=name)
        axis.set(title=title, xlabel="block length", xscale="log", ylim=(0, None))
        axis.set_xticks(LENGTHS, [str(one) for one in LENGTHS])
        axis.minorticks_off()
    axes[1].legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
