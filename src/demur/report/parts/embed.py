"""A figure as markup that stands inside a page: inline SVG, or a PNG where the SVG would be too large.

In: a matplotlib `Figure`, a name that is unique on the page, and a description. Out: markup that refers to nothing
outside itself. Colours are variables, ``--x`` and their six digits, so that look.css can give each another in the dark.
"""

from __future__ import annotations

import base64
import re

from markupsafe import Markup, escape
from matplotlib.figure import Figure

from demur.report.parts.look import render

LARGEST_SVG = 500_000
"""In bytes."""


def embed(figure: Figure, name: str, description: str) -> Markup:
    """`figure` as an ``<svg>`` element, or as an ``<img>`` with a PNG in its address above `LARGEST_SVG`.

    description : read out in place of the picture.
    """
    svg = _svg(figure)
    if len(svg) > LARGEST_SVG:
        address = "data:image/png;base64," + base64.b64encode(render(figure, "png")).decode()
        return Markup('<img src="{}" alt="{}">').format(address, description)
    opening = Markup('<svg role="img" focusable="false" aria-label="{}"').format(description)
    return opening + Markup(_with_prefix(svg, name).removeprefix("<svg"))


def _svg(figure: Figure) -> str:
    """The bare ``<svg>`` element: no prologue, comments, style sheet for the whole page, or fixed size."""
    text = render(figure, "svg").decode("utf-8")
    text = re.sub(r"<!--.*?-->|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"((?:fill|stroke): )#([0-9a-f]{6})", r"\1var(--x\2, #\2)", text)
    return re.sub(r' (?:width|height)="[\d.]+pt"', "", text, count=2)


def _with_prefix(svg: str, name: str) -> str:
    """Put `name` before every id, so that two figures on one page do not share any."""
    name = escape(name)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", svg)
