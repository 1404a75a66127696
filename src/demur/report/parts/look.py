"""What the figures share: sizes, colours of text and rules, and the matplotlib settings.

The figures are 4.2 inches wide, so that their text is still legible where a phone shrinks them to its width.
"""

from __future__ import annotations

import io
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from demur.report.parts.labels import NOT_MEASURED

INK, MUTED, RULE = "#1b1b1b", "#5f5f5f", "#c8c8c8"
WIDTH = 4.2

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 9.5,
    "legend.title_fontsize": 9.5,
    "figure.constrained_layout.w_pad": 0.07,
    "figure.constrained_layout.h_pad": 0.06,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "text.parse_math": False,  # a prompt id may hold a dollar sign
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "svg.fonttype": "path",
    "svg.hashsalt": "demur",  # the same study gives the same file
}


def tint(colour: str, place: int, count: int) -> tuple[float, float, float]:
    """Shade `place` of `count` of a colour, from light to the colour itself."""
    share = 0.35 + 0.65 * place / max(count - 1, 1) if count > 1 else 1.0
    red, green, blue = (1 - share * (1 - np.array(to_rgb(colour)))).tolist()
    return red, green, blue


def say_not_measured(axes: Axes) -> None:
    """Write into empty axes that there is nothing to show."""
    axes.text(0.5, 0.5, NOT_MEASURED, transform=axes.transAxes, ha="center", va="center", color=MUTED)


def render(figure: Figure, kind: str) -> bytes:
    """The file of a figure, "svg" or "png" at 160 dpi; the same bytes each time."""
    out = io.BytesIO()
    metadata = dict.fromkeys(("Date", "Type", "Creator", "Format")) if kind == "svg" else None
    with matplotlib.rc_context(STYLE):  # ticks are made while drawing
        figure.savefig(out, format=kind, dpi=160, metadata=metadata)
    return out.getvalue()
