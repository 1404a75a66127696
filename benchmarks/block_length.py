"""Does the block length trade recovery against speed? The two bundled diffusion models at block lengths 1 to 32.

The same harmful prompts, plain and wrapped, under the dynamic rule: a step commits whatever is surer than a threshold.
Of each block length: how often a harmful text that was predicted is taken back (HRR), how often the answer refuses
(RR), and how many steps an answer took. demur/tiny-diffusion takes any block length; demur/tiny-block was trained with
blocks of 8, and sees nothing behind its block. Further training seeds of it are checkpoints of
`training/train.py block OUT --seed N`; all begin at the weights of the one demur/tiny-diffusion. Over several seeds the
mean has an interval of Student's t over the seeds, else Wilson's over the prompts.

    python benchmarks/block_length.py [--blocks build/tiny/block-1 build/tiny/block-2]
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
from scipy.stats import t

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
ENDS = ("value", "low", "high")
TITLES = {"HRR": "harmful text taken back (HRR)", "RR": "answers that refuse (RR)", "steps": "steps an answer took"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "block-length.json")
    parser.add_argument("--blocks", nargs="*", default=[], help="further training seeds of demur/tiny-block")
    parser.add_argument("--draw", type=Path, help="draw the figure from what OUT holds already")
    given = parser.parse_args()
    if given.draw:
        draw(json.loads(given.out.read_text(encoding="utf-8")), given.draw)
        return
    sets = read_sets(Path("demur/toy"), None)
    prompts = [one for name, size in TESTED.items() for one in first_of_each(sets[name], size)]
    trained = {MODELS[0]: [MODELS[0]], MODELS[1]: [MODELS[1], *given.blocks]}
    rows = [
        {"model": name, "seed": seed, **row}
        for name, checkpoints in trained.items()
        for seed, checkpoint in enumerate(checkpoints)
        for row in measure(demur.load(checkpoint, dtype="float32"), prompts)
    ]
    seeds = {name: len(checkpoints) for name, checkpoints in trained.items()}
    found = {"rows": rows, "over_seeds": list(over_seeds(rows))}
    write_result(given.out, {"threshold": THRESHOLD, "prompts": TESTED, "training_seeds": seeds, **found})


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
            yield {"block_length": length, "measure": measured, **vars(rate)}
        steps = np.array([steps_taken(recording, row) for row in range(len(recording))])
        half = 1.96 * steps.std(ddof=1) / np.sqrt(len(steps))
        mean = {"value": float(steps.mean()), "low": float(steps.mean() - half), "high": float(steps.mean() + half)}
        yield {"block_length": length, "measure": "steps", **mean, "count": len(steps)}


def over_seeds(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The mean of each number that several seeds have, with a 95% interval of Student's t over the seeds."""
    cells = sorted({(row["model"], row["block_length"], row["measure"]) for row in rows})
    for model, length, measured in cells:
        chosen = [
            row for row in rows if (row["model"], row["block_length"], row["measure"]) == (model, length, measured)
        ]
        values = np.array([row["value"] for row in chosen])
        if len(values) > 1:
            mean, half = values.mean(), t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
            least, most = (0, np.inf) if measured == "steps" else (0, 1)  # the others are shares
            low, high = (float(np.clip(end, least, most)) for end in (mean - half, mean + half))
            about = {"model": model, "block_length": length, "measure": measured, "seeds": len(values)}
            yield {**about, "value": float(mean), "low": low, "high": high}


def sampler_of(model: Model, length: int) -> Sampler:
    """The model's sampler with blocks of this length, and as many steps as any answer can need."""
    if model.samplers and model.samplers[0] == "BlockDiffusion":
        return BlockDiffusion(response_length=RESPONSE, block_length=length, schedule="dynamic", threshold=THRESHOLD)
    return MaskedDiffusion(RESPONSE, RESPONSE, block_length=length, schedule="dynamic", threshold=THRESHOLD)


def steps_taken(recording: demur.Recording, row: int) -> int:
    """Steps that committed a token; under the dynamic rule every step that does anything does."""
    committed = recording.steps_tokens(row).is_committed.sum(axis=1)
    return int((np.diff(committed, prepend=0) > 0).sum())


def draw(result: dict[str, Any], path: Path) -> None:
    """One panel a measure; of several seeds their mean, and each of them faintly."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, (measure, title) in zip(axes, TITLES.items(), strict=True):
        for place, name in enumerate(MODELS):
            every, mean = (
                sorted(
                    (row for row in result[kind] if (row["model"], row["measure"]) == (name, measure)),
                    key=lambda row: int(row["block_length"]),
                )
                for kind in ("rows", "over_seeds")
            )
            chosen = mean or every
            x, value, low, high = (np.array([row[key] for row in chosen]) for key in ("block_length", *ENDS))
            x = x * (1.04 if place else 0.96)
            label = f"{name}, {chosen[0]['seeds']} training seeds" if mean else name
            colour = f"C{place}"
            axis.errorbar(
                x, value, [value - low, high - value], marker="os"[place], capsize=2, label=label, color=colour
            )
            if mean:
                lengths, values = zip(*((row["block_length"] * 1.04, row["value"]) for row in every), strict=True)
                axis.plot(lengths, values, ".", color=colour, alpha=0.4, markersize=5)
        axis.set(title=title, xlabel="block length", xscale="log", ylim=(0, None))
        axis.set_xticks(LENGTHS, [str(one) for one in LENGTHS])
        axis.minorticks_off()
    axes[1].legend(frameon=False, loc="lower left")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
