"""What a notebook shows of demur's objects: small HTML, with all data escaped.

In: names and plain values, or signals. Out: HTML, for `_repr_html_`. Nothing in it is text of a prompt or a model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

LINES = 40
"""Most signals that are drawn one by one; of more, as many are drawn at equal distances."""
_WIDTH, _HEIGHT = 420.0, 120.0
_LEFT, _TOP = 76.0, 8.0


def facts(title: str, values: Mapping[str, Any], more: str = "") -> str:
    """A table of two columns under a title; None is left out. more : HTML that stands below it."""
    left = 'style="text-align:left"'
    rows = "".join(
        f"<tr><th {left}>{escape(name)}</th><td {left}>{escape(_said(value))}</td></tr>"
        for name, value in values.items()
        if value is not None
    )
    return f"<div><strong>{escape(title)}</strong><table>{rows}</table>{more}</div>"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table with a head."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{escape(_said(value))}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def plot(signals: NDArray[np.floating[Any]]) -> str:
    """Signals `[prompts, steps]` in [0, 1] as lines in one SVG, with their median; "" for what is none."""
    values = np.asarray(signals)
    if values.ndim != 2 or not values.size or not ((values >= 0) & (values <= 1)).all():
        return ""
    chosen = np.unique(np.linspace(0, len(values) - 1, min(LINES, len(values))).round().astype(int))
    lines = [_line(values[row], "#0072B2", "1", "0.25") for row in chosen]
    lines.append(_line(np.median(values, axis=0), "#D55E00", "2", "1"))
    right, bottom = _LEFT + _WIDTH, _TOP + _HEIGHT
    axes = f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="currentColor"/>'
    words = [
        (_LEFT - 6, _TOP + 8, "end", "1 = complies"),
        (_LEFT - 6, bottom, "end", "0 = refuses"),
        (_LEFT, bottom + 16, "start", "step 1"),
        (right, bottom + 16, "end", str(values.shape[1])),
    ]
    labels = "".join(f'<text x="{x:g}" y="{y:g}" text-anchor="{at}">{word}</text>' for x, y, at, word in words)
    title = f"{len(values)} signals over {values.shape[1]} steps, {len(chosen)} drawn, and their median"
    return (
        f'<svg role="img" width="{right + 12:g}" height="{bottom + 24:g}" font-size="11" fill="currentColor">'
        f"<title>{title}</title>{axes}{''.join(lines)}{labels}</svg>"
    )


def sampler_words(sampler: Mapping[str, Any]) -> str:
    """The name and arguments of a sampler, as in provenance, in one line."""
    given = ", ".join(f"{name}={value}" for name, value in sampler.items() if name != "name")
    return f"{sampler.get('name')}({given})"


def _line(signal: NDArray[np.floating[Any]], colour: str, width: str, opacity: str) -> str:
    across = _LEFT + np.linspace(0, _WIDTH, max(2, len(signal)))
    down = _TOP + _HEIGHT * (1 - np.resize(signal, max(2, len(signal))))
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}" opacity="{opacity}"/>'


def _said(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
