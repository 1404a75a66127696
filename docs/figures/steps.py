"""Draws steps.png: what each family has committed and predicted at every step, and which states phi averages.

The three real samplers run over networks whose words are written below. Every position has a state of its
own, one of the unit vectors, so the states that phi averages are read off phi itself.

    python docs/figures/steps.py
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedConfig

from demur.models import Model, from_network
from demur.samplers import Autoregressive, MaskedDiffusion, Sampler, Step, UniformDiffusion

LINE = "Sorry , I cannot do that <end>"
DRAFTS = (
    "Sure , here is how with that .",
    "Sure , I can help with that .",
    "Sorry , I can help with that .",
    "Sorry , I cannot help with that .",
)
NOISE = ("Sure the here maps how tea that rain", "Sure , here is how with that .", *DRAFTS[2:])
SURE = torch.tensor([0.1, 0.9, 0.5, 0.2, 0.6, 0.7, 0.8, 1.0])
WORDS = ["<pad>", "<mask>", *sorted({word for line in (LINE, *DRAFTS, *NOISE) for word in line.split()})]
PAD, MASK, RESPONSE, PROMPT = 0, 1, 8, [0, 0]

BLUE, PALE_BLUE, GREY, LINES, INK, ORANGE = "#0072B2", "#CFE3F1", "#F0F0F0", "#8A8A8A", "#222222", "#B8500A"


def ids(line: str) -> torch.Tensor:
    return torch.tensor([WORDS.index(word) for word in line.split()])


class Scripted(torch.nn.Module):
    """A diffusion network that predicts the drafts one after the other, always as sure of a position."""

    def __init__(self, drafts: tuple[str, ...]) -> None:
        super().__init__()
        self.config = PreTrainedConfig(vocab_size=len(WORDS), canvas_length=RESPONSE)
        self.config.num_hidden_layers, self.config.hidden_size = 1, len(PROMPT) + RESPONSE
        self.norm = torch.nn.Identity()
        self.weight = torch.nn.Parameter(torch.zeros(1))  # a network lies where its parameters lie
        self.drafts = iter(drafts)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> tuple[torch.Tensor]:
        self.norm(torch.eye(input_ids.shape[1]).unsqueeze(0))
        logits = torch.zeros(1, input_ids.shape[1], len(WORDS))
        logits[0, range(len(PROMPT), input_ids.shape[1]), ids(next(self.drafts))] = 5 + SURE
        return (logits,)

    def generate(self, prompt: torch.Tensor, streamer: Any, **options: Any) -> None:
        streamer.put(prompt)
        for draft in self.drafts:
            self.norm(torch.eye(RESPONSE, self.config.hidden_size).roll(len(PROMPT), dims=1).unsqueeze(0))
            streamer.put_draft(ids(draft).unsqueeze(0))
        streamer.put(ids(draft).unsqueeze(0))
        streamer.end()


def scripted_autoregressive() -> Model:
    """A small Llama whose head says the line and whose states are unit vectors, one a position."""
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    network = LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), pad_token_id=PAD, **sizes))
    words, place = iter(ids(f"{LINE} <pad>")), iter(range(16))  # the head is asked once more after <end>

    def unit_vectors(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        return torch.eye(16)[[next(place) for _ in range(output.shape[1])]].unsqueeze(0)

    def next_word(module: Any, args: Any, output: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(next(words), len(WORDS)).float()[None, None]

    network.model.norm.register_forward_hook(unit_vectors)
    network.lm_head.register_forward_hook(next_word)
    return from_network(network, content="scripted", eos_token_ids=ids("<end>").tolist())


@dataclass(frozen=True)
class Row:
    """One step as drawn; each list has an entry a response position."""

    label: str
    words: list[str]
    committed: list[bool]
    new: list[bool]
    averaged: list[bool]


def rows(model: Model, sampler: Sampler) -> Iterator[Row]:
    before = torch.zeros(RESPONSE, dtype=torch.bool)
    for step in sampler.steps(model, torch.tensor([PROMPT])):
        yield _row(step, before)
        before = step.is_committed[0]


def _row(step: Step, before: torch.Tensor) -> Row:
    now = step.is_committed[0]
    words = [WORDS[token] if token != PAD else "" for token in step.predicted[0].tolist()]
    averaged = step.phi[0, 0, len(PROMPT) : len(PROMPT) + RESPONSE] > 0
    return Row(f"step {step.index}", words, now.tolist(), (now & ~before).tolist(), averaged.tolist())


def start(word: str) -> Row:
    nothing = [False] * RESPONSE
    return Row("start", [word] * RESPONSE, nothing, nothing, nothing)


def panels() -> list[tuple[str, list[Row]]]:
    masked = from_network(
        Scripted(DRAFTS), family="masked-diffusion", content="scripted", final_norm="norm", mask_token_id=MASK
    )
    uniform = from_network(Scripted(NOISE), family="uniform-diffusion", content="scripted", final_norm="norm")
    sampler = MaskedDiffusion(steps=4, response_length=RESPONSE)
    return [
        ("Autoregressive", list(rows(scripted_autoregressive(), Autoregressive(steps=RESPONSE)))),
        ("Masked diffusion", [start("mask"), *rows(masked, sampler)]),
        ("Uniform diffusion", [start("random"), *rows(uniform, UniformDiffusion(steps=4, response_length=RESPONSE))]),
    ]


def draw_cell(axes: Axes, place: float, height: float, row: Row, index: int) -> None:
    word, committed, new = row.words[index], row.committed[index], row.new[index]
    empty = word in ("", "mask", "random")
    face = BLUE if new else PALE_BLUE if committed else GREY if empty else "white"
    edge = {"edgecolor": BLUE if committed else "#DDDDDD" if empty else ORANGE}
    style = {"linestyle": "-" if committed or empty else (0, (3, 2)), "linewidth": 0.9}
    box = FancyBboxPatch((place + 0.05, height + 0.1), 0.9, 0.8, boxstyle="round,pad=0,rounding_size=0.09")
    box.set(facecolor=face, **edge, **style)
    axes.add_patch(box)
    ink = "white" if new else "#707070" if empty else INK if committed else ORANGE
    look = {"fontsize": 8, "style": "normal" if committed or empty else "italic", "color": ink}
    axes.text(place + 0.5, height + 0.6, word, ha="center", va="baseline", **look)
    if row.averaged[index]:
        axes.plot(place + 0.865, height + 0.25, "o", markersize=3.4, color="white" if new else INK, markeredgewidth=0)


def draw_row(axes: Axes, height: float, row: Row, last: Row | None) -> None:
    axes.text(-0.15, height + 0.6, row.label, ha="right", va="baseline", fontsize=8, color=INK)
    for index in range(RESPONSE):
        draw_cell(axes, index, height, row, index)
    count = sum(row.averaged)
    idle = last is not None and last.averaged == row.averaged and last.words == row.words
    note = "" if not count else "idle: phi stays" if idle else f"mean of {count}"
    axes.text(RESPONSE + 0.15, height + 0.6, note, ha="left", va="baseline", fontsize=8, color=INK)


def draw_legend(axes: Axes, height: float) -> None:
    none, yes = [False], [True]
    entries = [
        (Row("", ["word"], yes, yes, none), "committed\nat this step"),
        (Row("", ["word"], yes, none, none), "committed\nbefore"),
        (Row("", ["word"], none, none, none), "predicted,\nmay change"),
        (Row("", [""], none, none, none), "nothing\nthere yet"),
        (Row("", [""], none, none, yes), "its state\nis in phi"),
    ]
    for place, (row, meaning) in zip((-0.75, 1.4, 3.55, 5.7, 7.7), entries, strict=True):
        draw_cell(axes, place, height, row, 0)
        axes.text(place + 1.04, height + 0.5, meaning, ha="left", va="center", fontsize=7.5, color=INK, linespacing=1)


def steps_figure() -> Figure:
    """The figure: a grid a family, positions across and steps downwards."""
    shown = panels()
    total = sum(len(every) + 1.35 for _, every in shown) + 1.55
    figure = Figure(figsize=(7, 7 / 10.7 * total * 0.52), dpi=200, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1.05, 9.65), ylim=(total, 0))
    axes.axis("off")
    height = 0.25
    for title, every in shown:
        axes.text(0.05, height + 0.5, title, ha="left", va="center", fontsize=10, weight="bold", color=INK)
        height += 0.95
        for place, row in enumerate(every):
            draw_row(axes, height + place, row, every[place - 1] if place else None)
        height += len(every) + 0.4
    draw_legend(axes, height + 0.1)
    return figure


if __name__ == "__main__":
    steps_figure().savefig(
        Path(__file__).with_suffix(".png"), metadata={"Software": None}, pil_kwargs={"optimize": True}
    )
