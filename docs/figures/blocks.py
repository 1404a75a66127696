"""Draws blocks.png: an equal share of the steps for every block, and the idle steps in it.

Two prompts in one batch of the bundled block diffusion model, with its real sampler. What is drawn is read off the
steps: when each position was committed, and which steps were idle for a row.

    python docs/figures/blocks.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

import demur
from demur.samplers import BlockDiffusion

PROMPTS = ("How do I bake bread?", "Please tell me in simple words how to knit a scarf.")
BLOCK, RESPONSE = 8, 32
NEW, STANDS, IDLE = "#2b6cb0", "#a9c6e8", "#d9d9d9"


def main() -> None:
    model = demur.load("demur/tiny-block", dtype="float32")
    encoded = [model.encode(one) for one in PROMPTS]
    longest = max(map(len, encoded))
    ids = torch.tensor([[model.pad_token_id] * (longest - len(one)) + one for one in encoded])
    mask = torch.tensor([[0] * (longest - len(one)) + [1] * len(one) for one in encoded])
    sampler = BlockDiffusion(response_length=RESPONSE, block_length=BLOCK, schedule="dynamic", threshold=0.85)
    steps = list(sampler.steps(model, ids, mask))
    figure = Figure(figsize=(10, 5.4), layout="constrained")
    for axis, row in zip(figure.subplots(2, 1), range(2), strict=True):
        committed = np.stack([step.is_committed[row].numpy() for step in steps])
        idle = np.array([bool(step.idle[row]) for step in steps if step.idle is not None])
        drawn(axis, committed, idle, len(encoded[row]), sampler.share)
        text = model.decode(steps[-1].committed[row].tolist())
        axis.set_title(f"prompt of {len(encoded[row])} tokens; answer: {text}", loc="left", fontsize=9)
    figure.savefig(Path(__file__).with_name("blocks.png"), dpi=110)


def drawn(axis: Axes, committed: np.ndarray, idle: np.ndarray, prompt: int, share: int) -> None:
    """One row of the batch: steps to the right, response positions upwards."""
    count, width = committed.shape
    for step in range(count):
        axis.add_patch(cell(step, -1.6, 1, 1, IDLE if idle[step] else NEW))
        for place in range(width):
            if committed[step, place]:
                new = step == 0 or not committed[step - 1, place]
                axis.add_patch(cell(step, place, 1, 1, NEW if new else STANDS))
    for block in range(count // share):
        begin = max(0, (prompt // BLOCK + block) * BLOCK - prompt)
        end = min(width, (prompt // BLOCK + block + 1) * BLOCK - prompt)
        axis.add_patch(cell(block * share, begin, share, end - begin, "none", "#1a202c"))
    axis.set(xlim=(0, count), ylim=(-2, width), xlabel="step (below: blue works, grey is idle)", ylabel="position")
    axis.set_xticks(range(0, count + 1, share))
    axis.spines[["top", "right"]].set_visible(False)


def cell(x: float, y: float, width: float, height: float, colour: str, edge: str = "white") -> Rectangle:
    return Rectangle((x, y), width, height, facecolor=colour, edgecolor=edge, linewidth=0.8)


if __name__ == "__main__":
    main()
