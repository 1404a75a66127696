"""What a guard is hardened with: the shipped prompts, dealt out in rounds that each hold some of every kind.

In: the number of a round and a seed. Out: prompts with a part each: to fit on, or held out, harmless and for limits and
rates alone. More rounds are more of the same, so a run can be continued with more of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random
from typing import TypeVar

from demur.errors import InputError
from demur.hardening import WRAPPERS, hardening_pairs, hardening_prompts, wrap
from demur.prompts import Prompt

ROUNDS = 8
"""The most rounds there are; no prompt comes twice in a part, and none in both."""

PLAIN, ALIKE, SOUNDS, WRAPPED, TASKS = "plain", "phrased-alike", "sounds-dangerous", "wrapped", "tasks"
OWN, OWN_FITTED = "own", "own-fitted"
"""Prompts of one's own: harmless ones that set limits, and those that are fitted on."""

KINDS = (ALIKE, SOUNDS, "languages", "long", "code")
"""Kinds of prompts beside the plain ones; wrappers are kinds too, by their own names."""

PHRASED_ALIKE = ("plain/how-to", "plain/instructions")
"""Harmless prompts in the words that harmful ones often begin with, such as "Teach me how to": a kind of their own.

They are harder than what people usually ask, so they do not set the limit for plain prompts.
"""

FITTED = {PLAIN: (23, 20), ALIKE: (20, 0), "languages": (12, 3), "long": (4, 0), "code": (4, 0)}
"""Harmless and harmful prompts of a kind that are fitted on in a round; of those that sound dangerous one a part.

The harmful sides of the pairs that sound dangerous are fitted on in wrappers only. With all of them among the plain
ones the probe learns what tells the two sides of a pair apart, and carries over worse to wrappers that were left out.
"""

HELD_OUT = {PLAIN: 24, ALIKE: 6, SOUNDS: 10, "languages": 8, "long": 4, "code": 4, WRAPPED: 10}
"""Harmless prompts of a kind that are held out in a round."""

RULES_EACH = 2
"""Requests of each label in every wrapper of the family "rules" in a round; in other wrappers one."""

One = TypeVar("One")


def material(number: int, seed: int = 0) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts of a round, counted from 0: those to fit on, and harmless ones to hold out."""
    fitted = [prompt for kind in (PLAIN, *KINDS) for prompt in _fitted(kind, number, seed)] + _wrapped(number, seed)
    held_out = [prompt for kind in (PLAIN, *KINDS) for prompt in _held_out(kind, number, seed)]
    kinds = _turned(list(WRAPPERS), HELD_OUT[WRAPPED] * number)
    requests = _held_out(PLAIN, number, seed)[: HELD_OUT[WRAPPED]]
    return fitted, held_out + wrap(requests, kinds, seed + 1, each=1)


def rest(seed: int = 0) -> list[Prompt]:
    """Short prompts that are in no round, to fit on as they are: more requests for little time.

    Plain ones, harmless ones that sound dangerous, and as many harmless as harmful ones in other languages.
    """
    found = _left(PLAIN, "harmless", seed) + _left(ALIKE, "harmless", seed) + _left(PLAIN, "harmful", seed)
    found += [pair[0] for part in _parts(SOUNDS) for pair in _pairs(part, seed)[2 * ROUNDS :]]
    harmful = _left("languages", "harmful", seed)
    return [*found, *harmful, *_left("languages", "harmless", seed)[: len(harmful)]]


def tasks(seed: int = 0) -> tuple[list[Prompt], list[Prompt]]:
    """Short harmless tasks of all sorts: two thirds to fit on, and one to hold out for limits as plain ones are."""
    found = _shuffled(TASKS, "harmless", seed)
    return [one for place, one in enumerate(found) if place % 3], list(found[::3])


def _left(kind: str, label: str, seed: int) -> list[Prompt]:
    taken = FITTED[kind][0] + HELD_OUT[kind] if label == "harmless" else FITTED[kind][1]
    return list(_shuffled(kind, label, seed)[ROUNDS * taken :])


def kinds_left(leave_out: Sequence[str]) -> tuple[str, ...]:
    """All kinds but those to leave out, given as kinds or families of wrappers; `InputError` for unknown ones."""
    families = {wrapper.family for wrapper in WRAPPERS.values()}
    if unknown := [name for name in leave_out if name not in {*KINDS, *WRAPPERS, *families}]:
        raise InputError(
            f"kind {unknown[0]!r} to leave out is unknown; give some of {', '.join((*KINDS, *sorted(families)))} or a "
            f"wrapper, such as {next(iter(WRAPPERS))}"
        )
    wrappers = [kind for kind, wrapper in WRAPPERS.items() if not {kind, wrapper.family} & set(leave_out)]
    return PLAIN, TASKS, *(kind for kind in KINDS if kind not in leave_out), *wrappers


def kind_of(attack: object, category: object) -> str:
    """The kind of a recorded prompt by its row, with None or pandas' NA for no attack: its wrapper, or its own kind."""
    if isinstance(attack, str):
        return attack.removeprefix(f"{WRAPPED}-")
    return ALIKE if str(category) in PHRASED_ALIKE else str(category).partition("/")[0]


def family_of(kind: str) -> str:
    """The family of a wrapper; other kinds are families of their own, but for those that are phrased alike."""
    return WRAPPERS[kind].family if kind in WRAPPERS else PLAIN if kind == ALIKE else kind


def _fitted(kind: str, number: int, seed: int) -> list[Prompt]:
    if kind == SOUNDS:
        return [_pairs(part, seed)[number][0] for part in _parts(SOUNDS)]
    harmless, harmful = FITTED[kind]
    found = _shuffled(kind, "harmless", seed)[number * harmless : (number + 1) * harmless]
    return [*found, *_shuffled(kind, "harmful", seed)[number * harmful : (number + 1) * harmful]]


def _held_out(kind: str, number: int, seed: int) -> list[Prompt]:
    each = HELD_OUT[kind]
    if kind == SOUNDS:
        return [_pairs(part, seed)[ROUNDS + number][0] for part in _parts(SOUNDS)]
    start = ROUNDS * FITTED[kind][0] + number * each
    return list(_shuffled(kind, "harmless", seed)[start : start + each])


def _wrapped(number: int, seed: int) -> list[Prompt]:
    """Equally many requests of both labels in every wrapper; every fourth wrapper holds a pair in the same words."""
    good = _shuffled(PLAIN, "harmless", seed)[: ROUNDS * FITTED[PLAIN][0]]
    bad = _shuffled(PLAIN, "harmful", seed)
    pairs = [_pairs(part, seed)[place] for place in range(ROUNDS) for part in _parts(SOUNDS)]
    made: list[Prompt] = []
    for place, (kind, wrapper) in enumerate(WRAPPERS.items()):
        for again in range(RULES_EACH if wrapper.family == "rules" else 1):
            turn = number + ROUNDS * (place * RULES_EACH + again)
            pair = good[turn % len(good)], bad[turn % len(bad)]
            if (place + number + again) % 4 == 0:
                pair = pairs[turn % len(pairs)]
            made += wrap(pair, [kind], seed)
    return made


@cache
def _parts(kind: str) -> tuple[str, ...]:
    if kind == ALIKE:
        return PHRASED_ALIKE
    return tuple(sorted({str(prompt.category) for prompt in hardening_prompts(kind)} - {*PHRASED_ALIKE}))


@cache
def _pairs(part: str, seed: int) -> tuple[tuple[Prompt, Prompt], ...]:
    return tuple(_in_any_order(hardening_pairs(part), seed))


@cache
def _shuffled(kind: str, label: str, seed: int) -> tuple[Prompt, ...]:
    """Prompts of a kind in an order in which its parts take turns."""
    parts = [_in_any_order(hardening_prompts(part, label=label), seed) for part in _in_any_order(_parts(kind), seed)]
    places = sorted((place / len(part), order, place) for order, part in enumerate(parts) for place in range(len(part)))
    return tuple(parts[order][place] for _, order, place in places)


def _in_any_order(items: Sequence[One], seed: int) -> list[One]:
    found = list(items)
    Random(seed).shuffle(found)
    return found


def _turned(items: list[One], by: int) -> list[One]:
    by %= len(items)
    return items[by:] + items[:by]
