"""`write_report`: one HTML file that tells what a study found and how.

In: a `Study`. Out: a file that loads nothing, needs no script and is legible on a phone, on paper and to a screen
reader. Prompts and answers are left out of it unless they are asked for.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from demur.report.parts.embed import embed
from demur.report.parts.figures import irr_figure, projection_figure, roc_figure
from demur.report.parts.first import kinds_figure, three_numbers
from demur.report.parts.groups import attacks, drawn_words, name_of, refusals
from demur.report.parts.labels import measured, plain, visible
from demur.report.parts.linked import write_page
from demur.report.parts.tables import (
    anchor_cells,
    detection_table,
    headline,
    rates_table,
    settings_sections,
)
from demur.report.parts.trajectories import bands_figure, signal_figure
from demur.report.study.checked import check_section
from demur.report.study.detectors import (
    WRAPPED_HEADLINE,
    compared_table,
    controls_table,
    correlations_table,
    promises,
    streaming_table,
    wrapped_headline,
)
from demur.report.study.further import further_tables, missing_words
from demur.report.study.hardened import hardening_section
from demur.studies.study.results import Study

HEADLINE = (
    "harmless prompts flagged",
    WRAPPED_HEADLINE[0],
    "attack prompts flagged",
    "mean AUROC over attacks",
    WRAPPED_HEADLINE[1],
    "plain harmful prompts refused",
)
"""The numbers of the headline in their order: what flatters the guard and what does not, side by side."""

KINDS = (
    "Thick: the mean signal of each kind of generation; thin: single ones. Near 1 the states are those of answered "
    "harmless prompts, near 0 those of refused harmful ones."
)


class Example(NamedTuple):
    """One generation to show; `prompt` and `text` are None where they stay hidden."""

    kind: str
    id: str
    group: str
    refused: bool
    flagged: bool
    error: str
    figure: Markup
    prompt: str | None
    text: str | None


def write_report(study: Study, path: str | Path, *, show_text: bool = False) -> Path:
    """Write the report of `study` to `path` as one self-contained HTML file, and return the path.

    show_text : put the prompt and the answer of the example generations into the file; else they are not in it.
    """
    path = Path(path)
    page = environment().get_template("study/template.html").render(**_context(study, show_text))
    write_page(path, page)
    return path


def environment() -> Environment:
    """Where the pages' templates are, and how values are printed in them."""
    return Environment(
        loader=PackageLoader("demur.report", ""),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def short_name(model: str) -> str:
    """A model's name for a title: a Hub id as it is, of a path the last part."""
    is_path = model.startswith(("/", ".", "~")) or model.count("/") > 1 or model.endswith(".gguf")
    return model.rstrip("/").rsplit("/", 1)[-1] if is_path else model


def _printable(value: Any) -> Any:
    """Spell out characters that hide or reorder text, wherever the template prints a value; markup stays as it is."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)


def _context(study: Study, show_text: bool) -> dict[str, Any]:
    found = headline(study) | wrapped_headline(study)
    return {
        "model": short_name(str(study.settings.get("model", "unnamed model"))),
        "sampler": (study.settings.get("sampler") or {}).get("name", "unnamed"),
        "steps": study.steps,
        "attacks": attacks(study),
        "anchors": anchor_cells(study),
        "headline": {name: found[name] for name in HEADLINE},
        "three": three_numbers(study),
        "kinds_words": KINDS,
        "rates": rates_table(study),
        "detection": [
            detection_table(study, "all", "All generations of an attack against the harmless test prompts"),
            detection_table(study, "complied", "Only generations in which the dictionary finds no refusal"),
        ],
        "compared": compared_table(study),
        "controls": controls_table(study),
        "correlations": correlations_table(study),
        "streaming": streaming_table(study),
        "promises": promises(study),
        "figures": _figures(study),
        "drawn": drawn_words(study),
        "examples": [_example(study, kind, place, show_text) for kind, place in example_places(study).items()],
        "threshold": measured((study.settings.get("guard") or {}).get("threshold")),
        "compliance": plain(study.settings.get("compliance", 0.5)),
        "check": check_section(study),
        "hardening": hardening_section(study),
        "further": further_tables(study, show_text),
        "missing": missing_words(study),
        "settings": settings_sections(study),
        "show_text": show_text,
    }


def _figures(study: Study) -> dict[str, Markup]:
    drawn = {
        "kinds": (kinds_figure, "Signal over the steps of harmless, refused and other generations."),
        "irr": (irr_figure, "Bars: internal recovery rate of each group at each threshold, with 95% intervals."),
        "roc": (roc_figure, "ROC curves of the guard's error for each attack against harmless prompts."),
        "bands": (bands_figure, "Mean signal and 10 to 90% band over the steps, one panel a group."),
        "projection": (projection_figure, "Scatter of generations on two discriminant axes, by kind."),
    }
    return {name: embed(draw(study), f"figure-{name}", text) for name, (draw, text) in drawn.items()}


def example_places(study: Study) -> dict[str, int | None]:
    """For each kind, the row of the generation whose guard error is the median of its kind; None where it has none."""
    sets, refused = study.generations["set"], refusals(study)
    kinds = {
        "harmless": sets == "test_harmless",
        "refused": sets.isin(["test_harmful", "test_attacks"]) & refused,
        "complied under attack": (sets == "test_attacks") & ~refused,
    }
    return {kind: _median_place(study, chosen.to_numpy(dtype=bool)) for kind, chosen in kinds.items()}


def _median_place(study: Study, chosen: np.ndarray) -> int | None:
    places = np.flatnonzero(chosen)
    errors = study.generations["guard_error"].to_numpy(dtype=float)[places]
    measured = max(int(np.isfinite(errors).sum()), 1)
    order = np.argsort(errors, kind="stable")  # NaN goes last
    return int(places[order[(measured - 1) // 2]]) if len(places) else None


def _example(study: Study, kind: str, place: int | None, show_text: bool) -> tuple[str, Example | None]:
    if place is None:
        return kind, None
    row = study.generations.iloc[place]
    description = f"Signal over the steps of generation {visible(row['id'])}, against both references."
    return kind, Example(
        kind=kind,
        id=str(row["id"]),
        group=name_of(row["group"]),
        refused=bool(row["refused"] == True),  # noqa: E712
        flagged=bool(row["flagged"] == True),  # noqa: E712
        error=measured(row["guard_error"]),
        figure=embed(signal_figure(study, place), f"figure-{kind.replace(' ', '-')}", description),
        prompt=plain(row["prompt"]) if show_text else None,
        text=plain(row["text"]) if show_text else None,
    )
