"""Controls: harmless prompts by which to tell what a detector really sees.

In: the prompt sets of a study. Out: further sets of harmless prompts: long ones, other languages, ones that sound
dangerous, and harmless requests inside the very wrappers of the attacks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from demur.bundled import bundled_prompts
from demur.models import Model
from demur.prompts import Prompt, read_prompts
from demur.samplers import Sampler

PREFIX = "control_"
WRAPPED = PREFIX + "wrapped"

PLACE = "\0"
"""Where a goal stood, which no prompt holds."""

REST = 0.3
"""The share of the words of a goal from which on a line still says what the goal is."""

COMMON = frozenset(
    "about also been could from have here into more most only other should some such than that their them then there "
    "these they this those very what when where which while will with would your write make create give using".split()
)


def bundled_controls() -> dict[str, list[Prompt]]:
    """The bundled harmless prompts, a set a kind."""
    return {PREFIX + path.stem: read_prompts(path) for path in bundled_prompts("demur/controls")}


def wrapped(attacks: Sequence[Prompt], harmless: Sequence[Prompt]) -> list[Prompt]:
    """Harmless requests inside the wrappers of attacks: the n-th prompt of each attack holds the n-th request.

    The goal of an attack prompt is replaced where its text holds it, in whatever case; an attack that words its
    prompts anew (PAIR, encodings) has no such wrapper and is left out. Some wrappers name the goal once more, such as a
    beginning that the answer has to take, "Sure, here is ...": what is left of the goal is replaced as well, for a
    prompt that still asks for it is not harmless. At most as many an attack as there are requests.
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
        emptied = _without_rest(re.sub(re.escape(goal), PLACE, text, flags=re.IGNORECASE), goal, request)
        filled = emptied.replace(PLACE, request)
        found.append(replace(prompt, id=f"{prompt.id}-harmless", prompt=filled, label="harmless", goal=request))
        counts[prompt.group] = place + 1
    return found


def _without_rest(text: str, goal: str, request: str) -> str:
    """The text with a phrase about the request in every line that holds much of the goal in other words."""
    words = _content(goal)
    lines = []
    for line in text.split("\n"):
        held = [match for match in re.finditer(r"[^\W\d_]+", line) if match[0].lower() in words]
        if len({match[0].lower() for match in held}) >= max(2, REST * len(words)):
            before = re.sub(r"\b(an?|the|how to)\s+$", "", line[: held[0].start()], flags=re.IGNORECASE)
            line = f'{before}an answer to "{request}"{line[held[-1].end() :]}'
        lines.append(line)
    return "\n".join(lines)


def _content(goal: str) -> set[str]:
    """The words of a goal by which it is known again: those of four letters or more that are not too common."""
    return set(re.findall(r"[^\W\d_]{4,}", goal.lower())) - COMMON


def fitting_sets(
    model: Model, sampler: Sampler, sets: Mapping[str, Sequence[Prompt]], say: Callable[[str], None]
) -> dict[str, list[Prompt]]:
    """The prompts of each set that fit, and a line of news for each set of which some do not."""
    found = {name: fitting(model, sampler, prompts) for name, prompts in sets.items()}
    for name, prompts in sets.items():
        if left := len(prompts) - len(found[name]):
            say(f"{name}: {left} of {len(prompts)} prompts do not fit the context; left out")
    return found


def fitting(model: Model, sampler: Sampler, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that leave room for a response in the model's context; a control is no reason to stop a study."""
    room = None if model.context_length is None else model.context_length - sampler.response_length
    return [
        prompt for prompt in prompts if room is None or len(model.encode(prompt.prompt or "", prompt.turns)) <= room
    ]
