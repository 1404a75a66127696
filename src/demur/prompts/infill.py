"""The template of a response: fixed text with gaps that the model fills in.

In: text with marks such as ``Step 1: [[mask:8]]``, or the mask tokens of published attacks. Out: its parts in their
order, a text or a number of free positions. Turning texts into token ids is left to whoever has a tokenizer.
"""

from __future__ import annotations

import re

from demur.errors import InputError

OPENING = "[[mask"
_MARK = re.compile(r"\[\[mask:([1-9][0-9]*)\]\]")

# The mask tokens of diffusion models and the marks of DIJA's files, alone or with a number of positions. Brackets of
# our own mark are left alone.
_FOREIGN = re.compile(
    r"(?:<\|?(?:mdm_)?mask\|?>|<\|?(?:mdm_)?mask:(?P<angle>\d+)\|?>|(?<!\[)\[mask(?::(?P<square>\d+))?\](?!\]))",
    re.IGNORECASE,
)
_NAMES = r"(?:\w*mask\w*|blank|gap|fill|infill|hole|fim_hole|extra_id|sentinel)"
_SUSPECT = re.compile(rf"[<\[{{]{{1,2}}\W{{0,2}}{_NAMES}[^<>\[\]{{}}]{{0,12}}[>\]}}]{{1,2}}|_{{3,}}", re.IGNORECASE)


def mark(positions: int) -> str:
    """The mark that leaves `positions` response positions free."""
    if positions < 1:
        raise InputError(f"a gap of {positions} positions; expected at least 1")
    return f"{OPENING}:{positions}]]"


def plain_marks(template: str) -> str:
    """The template with the masks of other people's files written as ``[[mask:N]]``.

    ``<mask>``, ``<|mask|>``, ``<|mdm_mask|>`` and ``[MASK]`` are one position each; ``<mask:8>`` and ``[MASK:8]``
    are eight.
    """
    return _FOREIGN.sub(lambda found: f"{OPENING}:{found['angle'] or found['square'] or 1}]]", template)


def looks_like_a_mask(text: str) -> str | None:
    """The first piece of `text` that looks like a mark for something to fill in; None where there is none."""
    found = _FOREIGN.search(text) or _SUSPECT.search(text)
    return None if found is None else found[0][:20]


def infill_parts(template: str) -> list[str | int]:
    """The parts of a template: texts that are forced, and the lengths of the gaps between them.

    Raises `InputError` for a mark whose number of positions is not plain (see `plain_marks`), and for a template
    that forces nothing.
    """
    pieces = _MARK.split(plain_marks(template))  # text, length, text, length, ..., text
    texts = pieces[::2]
    broken = next((text for text in texts if OPENING in text), None)
    if broken is not None:
        found = broken[broken.index(OPENING) :][:20]
        raise InputError(f"the mark {found!r} is none; write [[mask:N]] with N free positions, at least 1")
    if suspect := next((one for text in texts if (one := looks_like_a_mask(text))), None):
        raise InputError(
            f"{suspect!r} looks like a mark for something to fill in, but not for how many positions; write [[mask:N]] "
            f"with N free positions, or reword it where it is text"
        )
    if not any(texts):
        raise InputError("the template holds no text to force; write text around [[mask:N]], or leave it out")
    parts: list[str | int] = [int(piece) if place % 2 else piece for place, piece in enumerate(pieces)]
    return [part for part in parts if part != ""]
