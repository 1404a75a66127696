"""How much of a model can be checked in the time there is.

In: a model and a number of minutes. Out: numbers of steps, rows and words. One short and one longer forward pass are
timed, and the largest of a few plans whose passes fit is taken.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from demur.models import Model

WORDS = (1, 2, 3, 4, 6, 8, 10, 13, 17, 22, 30, 48)
"""Words of the 12 prompts of a batch, in the largest plan twice as many."""
PLANS = ((16, 12, 2.0), (16, 12, 1.0), (8, 12, 1.0), (6, 6, 0.5), (4, 4, 0.5), (3, 3, 0.3))
QUICK_PLANS = ((6, 4, 1.0), (4, 4, 0.5), (3, 2, 0.3))
QUICK_ROWS = (0, 4, 7, 10)
"""Which of `WORDS` the quick check keeps."""
QUICK_SECONDS = 15.0
PROBED = 48
"""Tokens of the longer pass that is timed."""
WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window_size", "window_size", "sliding_window_size")


@dataclass(frozen=True)
class Speed:
    """Seconds of a forward pass: ``fixed + token * tokens``."""

    fixed: float
    token: float

    def of(self, tokens: int) -> float:
        """Seconds of a pass over so many tokens, all rows together."""
        return self.fixed + self.token * tokens


@dataclass(frozen=True)
class Plan:
    """Sizes of a check.

    steps : of every generation. compared : which rows of a batch are run alone too. words : of each row.
    seconds : what was estimated. allowed : seconds there are.
    """

    steps: int
    compared: tuple[int, ...]
    words: tuple[int, ...]
    seconds: float
    allowed: float
    speed: Speed
    window: int | None


def plan_of(model: Model, minutes: float, *, quick: bool) -> Plan:
    """The largest plan that fits into `minutes`; the smallest where none does."""
    speed = speed_of(model)
    allowed = min(QUICK_SECONDS, 60 * minutes) if quick else 60 * minutes
    room = (model.context_length or 1 << 20) // 4
    made = []
    for steps, compared, factor in QUICK_PLANS if quick else PLANS:
        words = [WORDS[place] for place in QUICK_ROWS] if quick else list(WORDS)
        words = [max(1, min(int(count * factor), room)) for count in words]
        rows = tuple(int(place) for place in np.linspace(0, len(words) - 1, min(compared, len(words))).round())
        made.append(Plan(steps, rows, tuple(words), _estimate(model, speed, steps, words, rows), allowed, speed, None))
    chosen = next((plan for plan in made if plan.seconds <= 0.8 * allowed), made[-1])
    return Plan(**{**vars(chosen), "window": window_of(model)})


def window_of(model: Model) -> int | None:
    """How many tokens a layer with a sliding window or chunks sees; None where every layer sees all."""
    kinds = getattr(model.config, "layer_types", None)
    if kinds is not None and all(kind == "full_attention" for kind in kinds):
        return None
    sizes = [getattr(model.config, name, None) for name in WINDOWS]
    return next((int(size) for size in sizes if isinstance(size, int) and size > 0), None)


@torch.no_grad()
def speed_of(model: Model) -> Speed:
    """Time one pass over a token and one over `PROBED`, each after a pass to warm up."""
    longest = min(PROBED, (model.context_length or PROBED) // 2)
    short, long = (_seconds(model, count) for count in (1, longest))
    token = max(long - short, 0.0) / max(longest - 1, 1)
    return Speed(max(short - token, 0.0), token)


def _seconds(model: Model, count: int) -> float:
    ids = torch.full((1, count), _ordinary_id(model), dtype=torch.int64, device=model.device)
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        if not model.traits.bare_pass:  # a pass needs a canvas too, which its sampler knows to make
            list(model.default_sampler(steps=1).steps(model, ids))
        else:
            run_once(model, ids)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def run_once(model: Model, ids: torch.Tensor) -> None:
    """One forward pass over ``[batch, positions]`` without padding, waited for."""
    takes = inspect.signature(model.network.forward).parameters
    options = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
    output = model.network(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    float(output[0].flatten()[0])  # waits for the device


def _ordinary_id(model: Model) -> int:
    special = {*model.eos_token_ids, model.pad_token_id, model.mask_token_id}
    return next(token for token in range(int(model.config.vocab_size)) if token not in special)


def _estimate(model: Model, speed: Speed, steps: int, words: Sequence[int], compared: Sequence[int]) -> float:
    """Seconds of all rows of the check: a chat format is taken for 20 tokens, a word for 1.3."""
    lengths = [20 + int(1.3 * count) for count in words]
    alone = [lengths[place] for place in compared]
    if model.traits.left_to_right:
        batch = speed.of(len(lengths) * max(lengths)) + steps * speed.of(len(lengths))
        single = sum(speed.of(length) + steps * speed.of(1) for length in alone)
        clean = sum(speed.of(length + steps) for length in alone)
        return 5 * batch + 3 * single + clean + 18 * (speed.of(30) + steps * speed.of(1))
    response = response_of(steps)
    batch = steps * speed.of(len(lengths) * (max(lengths) + response))
    single = steps * sum(speed.of(length + response) for length in alone)
    return 4 * batch + 3 * single + 18 * steps * speed.of(30 + response)


def response_of(steps: int) -> int:
    """Response positions of a masked diffusion model that is checked with so many steps."""
    return 2 * steps
