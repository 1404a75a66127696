"""Controls: harmless prompts by which to tell what a detector really sees.

In: the prompt sets of a study. Out: further sets of harmless prompts: long ones, other languages, ones that sound
dangerous, and harmless requests inside the very wrappers of the attacks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from demur.bundled import bundled_prompts
from demur.models import Model
from demur.prompts import Prompt, read_prompts
from demur.samplers import Sampler

PREFIX = "control_"
WRAPPED = PREFIX + "wrapped"


def bundled_controls() -> dict[str, list[Prompt]]:
    """The bundled harmless prompts, a set a kind."""
    return {PREFIX + path.stem: read_prompts(path) for path in bundled_prompts("demur/controls")}


def wrapped(attacks: Sequence[Prompt], harmless: Sequence[Prompt]) -> list[Prompt]:
    """Harmless requests inside the wrappers of attacks: the n-th prompt of each attack holds the n-th request.

    The goal of an attack prompt is replaced where its text holds it, in whatever case; an attack that words its
    prompts anew (PAIR, encodings) has no such wrapper and is left out. At most as many an attack as there are requests.
    """
    requests = [prompt.prompt for prompt in harmless if prompt.prompt]
    found: list[Prompt] = []
    counts: dict[str, int] = {}
    for prompt in attacks:
        place = counts.get(prompt.group, 0)
        goal, text = (prompt.goal or "").strip(), prompt.prompt or ""
        if not goal or place >= len(requests) or prompt.infill or goal.lower() not in text.lower():
            continue
        request = requests[place]
        filled = re.sub(re.escape(goal), request.replace("\\", r"\\"), text, flags=re.IGNORECASE)
        found.append(replace(prompt, id=f"{prompt.id}-harmless", prompt=filled, label="harmless", goal=request))
        counts[prompt.group] = place + 1
    return found


def fitting(model: Model, sampler: Sampler, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that leave room for a response in the model's context; a control is no reason to stop a study."""
    room = None if model.context_length is None else model.context_length - sampler.response_length
    return [
        prompt for prompt in prompts if room is None or len(model.encode(prompt.prompt or "", prompt.turns)) <= room
    ]
