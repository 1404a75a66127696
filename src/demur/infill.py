"""The template of a response: fixed text with gaps that the model fills in.

In: text with marks such as ``Step 1: [[mask:8]]``. Out: its parts in their order, a text or a number of free
positions. Turning texts into token ids is left to whoever has a tokenizer.
"""

from __future__ import annotations

import re

from demur.errors import InputError

OPENING = "[[mask"
_MARK = re.compile(r"\[\[mask:([1-9][0-9]*)\]\]")


def mark(positions: int) -> str:
    """The mark that leaves `positions` response positions free."""
    if positions < 1:
        raise InputError(f"a gap of {positions} positions; expected at least 1")
    return f"{OPENING}:{positions}]]"


def infill_parts(template: str) -> list[str | int]:
    """The parts of a template: texts that are forced, and the lengths of the gaps between them.

    Raises `InputError` for a mark that is not of the form ``[[mask:N]]`` with N from 1 up, and for a template
    that forces nothing.
    """
    pieces = _MARK.split(template)  # text, length, text, length, ..., text
    texts = pieces[::2]
    broken = next((text for text in texts if OPENING in text), None)
    if broken is not None:
        found = broken[broken.index(OPENING) :][:20]
        raise InputError(f"the mark {found!r} is none; write [[mask:N]] with N free positions, at least 1")
    if not any(texts):
        raise InputError("the template holds no text to force; write text around [[mask:N]], or leave it out")
    parts: list[str | int] = [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)]
    return [part for part in parts if part != ""]
