"""Words and numbers as a reader sees them.

In: names and texts that anyone may have written, and values with their intervals. Out: strings that are safe to
print, and `Cell`s. A rate never becomes a string without its count and interval.
"""

from __future__ import annotations

import textwrap
import unicodedata
from typing import Any, NamedTuple

import numpy as np

NOT_MEASURED = "not measured"
NO_INTERVAL = "too few for an interval"
"""In the place of an interval that the values say nothing about."""

# Joiners belong to the spelling of Persian, Hindi and emoji; the other format characters reorder or hide text.
_KEPT = frozenset("\n\t\u200c\u200d")
_HIDDEN = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})


class Cell(NamedTuple):
    """A value with its 95% interval and count; both are empty where nothing was measured."""

    value: str
    interval: str = ""
    cases: str = ""


def visible(text: object) -> str:
    """`text` with each control, bidirectional, surrogate and separator character spelled out, as in ⟨U+202E⟩."""
    return "".join(
        c if c in _KEPT or unicodedata.category(c) not in _HIDDEN else f"⟨U+{ord(c):04X}⟩" for c in str(text)
    )


def short(text: object, length: int = 24) -> str:
    """One line of at most `length` characters, for labels in figures."""
    line = visible(" ".join(str(text)[: 20 * length].split()))
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def broken(text: object, width: int = 18, length: int = 40) -> str:
    """`short` on as many lines of `width` characters as it needs: a name in a figure stays whole."""
    return "\n".join(textwrap.wrap(short(text, length), width)) or ""


def percent(value: float, low: float, high: float, count: int) -> Cell:
    """A share as a percentage, with its 95% interval and the number of cases."""
    if not count or not np.isfinite([value, low, high]).all():
        return Cell(NOT_MEASURED)
    return Cell(f"{100 * value:.1f}%", f"{100 * low:.1f}–{100 * high:.1f}%", f"n\u00a0=\u00a0{count}")


def percent_of(rate: Any) -> Cell:
    """A `Rate`, or the row of a table that holds one, as `percent` prints it."""
    return percent(rate.value, rate.low, rate.high, int(rate.count))


def area(value: float, low: float, high: float, positives: int, negatives: int) -> Cell:
    """An AUROC with its 95% interval and both counts."""
    if not positives or not negatives or not np.isfinite([value, low, high]).all():
        return Cell(NOT_MEASURED)
    return Cell(f"{value:.3f}", f"{low:.3f}–{high:.3f}", f"n\u00a0=\u00a0{positives} against {negatives}")


def correlation(value: float, low: float, high: float, count: int) -> Cell:
    """A correlation with its 95% interval and the number of cases."""
    if not np.isfinite([value, low, high]).all():
        return Cell(NOT_MEASURED)
    interval = f"{low:+.2f} to {high:+.2f}"
    return Cell(f"{value:+.2f}".replace("-", "−"), interval.replace("-", "−"), f"n\u00a0=\u00a0{count}")


def measured(value: float | None) -> str:
    """A single measurement, not a rate, to three digits."""
    return NOT_MEASURED if value is None or np.isnan(value) else f"{value:.3g}"


def plain(value: Any) -> str:
    """A setting as text: no more digits than mean something, lists with commas."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple, np.ndarray)):
        return ", ".join(plain(item) for item in value) or "none"
    return visible(value)
