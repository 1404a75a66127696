"""The prompts that ship for fitting a guard: plain, dangerous in sound only, other languages, long, code, and tasks.

In: the name of a kind. Out: `Prompt`s with a label and a category "KIND/PART". All are written for this purpose.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import cache
from typing import Any

from demur.errors import InputError
from demur.hardening.passages import DATA
from demur.prompts import Prompt, checked_rows

FILES = {
    "plain": "plain.jsonl",
    "sounds-dangerous": "sounds_dangerous.jsonl",
    "languages": "languages.jsonl",
    "long": "long.jsonl",
    "code": "code.jsonl",
    "tasks": "tasks.jsonl",
}


def hardening_prompts(kind: str | None = None, *, label: str | None = None) -> list[Prompt]:
    """The prompts of a kind, or of all kinds.

    kind : "plain", "sounds-dangerous", "languages", "long", "code", "tasks", or a part: "sounds-dangerous/history".
    label : only "harmless" or only "harmful" ones.
    Raises `InputError` naming the kinds or labels there are.
    """
    if label not in (None, "harmless", "harmful"):
        raise InputError(f"label {label!r} is unknown; give 'harmless' or 'harmful'")
    chosen = [prompt for file in _files(kind) for prompt in _prompts_of(file)]
    inside = [prompt for prompt in chosen if kind is None or _is_in(prompt, kind)]
    if not inside:
        parts = sorted({str(prompt.category) for prompt in chosen})
        raise InputError(f"kind {kind!r} has no prompts; give one of {', '.join(parts)}")
    return [prompt for prompt in inside if label in (None, prompt.label)]


def prompt_kind(prompt: Prompt) -> str:
    """The kind of a shipped prompt: its category up to the stroke."""
    return str(prompt.category).partition("/")[0]


def hardening_pairs(kind: str = "sounds-dangerous") -> list[tuple[Prompt, Prompt]]:
    """Harmless prompts that sound dangerous, each with the harmful one it is paired with.

    kind : as for `hardening_prompts`, "sounds-dangerous" or a part of it.
    """
    sides: dict[str, dict[str | None, Prompt]] = defaultdict(dict)
    for prompt in hardening_prompts(kind):
        sides[prompt.id.removesuffix(f"-{prompt.label}")][prompt.label] = prompt
    if any(len(pair) < 2 for pair in sides.values()):
        raise InputError(f"kind {kind!r} is not in pairs; give 'sounds-dangerous' or a part of it")
    return [(pair["harmless"], pair["harmful"]) for pair in sides.values()]


@cache
def _prompts_of(file: str) -> tuple[Prompt, ...]:
    """The prompts of a shipped file, read once: `demur harden` asks for parts of them over a hundred times."""
    return tuple(checked_rows(file, enumerate_rows(file), None))


def enumerate_rows(file: str) -> list[tuple[str, Any]]:
    """Pairs of a place and the row, of one of the shipped files."""
    lines = (DATA / file).read_text(encoding="utf-8").splitlines()
    return [(f"line {number}", json.loads(line)) for number, line in enumerate(lines, start=1)]


def _files(kind: str | None) -> list[str]:
    if kind is None:
        return list(FILES.values())
    name = kind.partition("/")[0]
    if name not in FILES:
        raise InputError(f"kind {kind!r} is unknown; give one of {', '.join(FILES)}")
    return [FILES[name]]


def _is_in(prompt: Prompt, kind: str) -> bool:
    return str(prompt.category) == kind or prompt_kind(prompt) == kind
