"""Figures of the measurements: detection, internal recovery and geometry.

In: a `Study`. Out: matplotlib `Figure`s. What a table of the study holds is taken from there and never computed
again; nothing is shown.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from demur.files.writing import write_whole
from demur.report.parts.groups import HARMFUL, RATE_COLUMNS, Style, attacks, drawn, drawn_words, name_of, style_of
from demur.report.parts.labels import NOT_MEASURED, area, broken, short
from demur.report.parts.look import INK, MUTED, RULE, STYLE, WIDTH, render, say_not_measured, tint
from demur.report.parts.sample import sampled
from demur.report.parts.trajectories import bands_figure
from demur.studies.study.results import Study

MANY_POINTS = 400
"""From this many on, points are rasterised, or an SVG would carry a shape for each."""

MOST_THRESHOLDS = 2_000
"""Points of an ROC curve; of more thresholds, evenly many are drawn. The AUROC beside it is over all."""
MOST_POINTS = 5_000
"""Generations that a figure shows as points; of more, a sample with equally many of each kind."""


@matplotlib.rc_context(STYLE)
def projection_figure(study: Study) -> Figure:
    """The two axes of a linear discriminant analysis that part the kinds of generation best."""
    every = study.projection
    points = every.iloc[sampled(every["kind"], MOST_POINTS)] if len(every) else every
    counts = every["kind"].value_counts()
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="first discriminant axis", ylabel="second discriminant axis", xticks=[], yticks=[])
    for kind, part in points.groupby("kind", sort=False):
        style = style_of(study, str(kind))
        axes.scatter(
            part["x"],
            part["y"],
            s=20,
            color=style.colour,
            marker=style.marker,
            alpha=0.65,
            linewidths=0,
            label=f"{short(kind)}, n = {counts[kind]}" + _shown(len(part), counts[kind]),
            rasterized=len(points) > MANY_POINTS,
        )
    if len(points):
        figure.legend(loc="outside upper left", ncols=1, handletextpad=0.2)
    else:
        say_not_measured(axes)
    return figure


def _shown(part: int, count: int) -> str:
    return "" if part == count else f", {part} drawn"


@matplotlib.rc_context(STYLE)
def roc_figure(study: Study) -> Figure:
    """ROC curves of the guard's error, each attack and plain harmful prompts against the harmless test prompts."""
    figure = Figure(figsize=(WIDTH, 4.1 + 0.2 * len(drawn(study))), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=RULE, linewidth=0.8)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    negatives = _errors(study, "test_harmless", None)
    axes.set(
        xlabel=f"share of harmless prompts flagged (n = {len(negatives)})", ylabel="share of attack prompts flagged"
    )
    limit = (study.settings.get("guard") or {}).get("threshold")
    handles = []
    for name, set_name in [(name, "test_attacks") for name in drawn(study)] + [(HARMFUL, "test_harmful")]:
        positives = _errors(study, set_name, name if set_name == "test_attacks" else None)
        if len(negatives) and len(positives):
            handles.append(_roc(axes, negatives, positives, limit, style_of(study, name)))
            handles[-1].set_label(_auroc_label(study, name, len(positives)))
    if not handles:
        say_not_measured(axes)
    if handles and limit is not None:
        handles.append(Line2D([], [], color=MUTED, marker="o", linestyle="", label="calibrated threshold of the guard"))
    if handles:
        title = "\n".join(filter(None, ["AUROC against harmless prompts (95% interval)", drawn_words(study)]))
        figure.legend(handles=handles, loc="outside lower left", title=title, alignment="left")
    return figure


@matplotlib.rc_context(STYLE)
def irr_figure(study: Study) -> Figure:
    """Internal recovery rates by group and lambda_r, with 95% intervals."""
    rates = study.rates.reindex(columns=RATE_COLUMNS)
    hidden = set(attacks(study)) - set(drawn(study))
    rates = rates[(rates["rate"] == "IRR") & (rates["count"] > 0) & ~rates["group"].isin(hidden)].dropna(
        subset=["value"]
    )
    groups, limits = list(dict.fromkeys(rates["group"])), sorted(set(rates["threshold"]), reverse=True)
    figure = Figure(figsize=(WIDTH, 1.2 + 0.5 * max(len(groups), 2)), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(0, 1), xlabel="internal recovery rate")
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")
    if not groups:
        say_not_measured(axes)
        return figure
    thickness = 0.8 / len(limits)
    for i, limit in enumerate(limits):
        part = rates[rates["threshold"] == limit].drop_duplicates("group").set_index("group")
        heights = np.array([groups.index(name) for name in part.index]) + (i - (len(limits) - 1) / 2) * thickness
        shades = [tint(style_of(study, str(name)).colour, i, len(limits)) for name in part.index]
        values = part[["value", "low", "high"]].to_numpy(dtype=float)
        whiskers = np.abs(values[:, 1:] - values[:, :1]).T
        axes.barh(heights, values[:, 0], thickness * 0.9, color=shades)
        axes.errorbar(values[:, 0], heights, xerr=whiskers, fmt="none", ecolor=INK, elinewidth=0.9, capsize=0)
    counts = rates.drop_duplicates("group").set_index("group")["count"]
    axes.set_yticks(range(len(groups)), [f"{broken(name_of(name))}\nn = {counts[name]}" for name in groups])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    greys = [Patch(color=tint(MUTED, i, len(limits)), label=f"λr = {limit:g}") for i, limit in enumerate(limits)]
    figure.legend(
        handles=greys, loc="outside upper left", ncols=len(limits), handlelength=1, title=drawn_words(study) or None
    )
    return figure


def save_figures(study: Study, folder: str | Path) -> list[Path]:
    """Write the figures of the whole study to `folder`, each as PNG (160 dpi) and SVG."""
    folder = Path(folder)
    written = []
    for name, draw in STANDING.items():
        figure = draw(study)
        for ending in ("png", "svg"):
            written.append(folder / f"{name}.{ending}")
            write_whole(written[-1], render(figure, ending))
    return written


STANDING = {"bands": bands_figure, "roc": roc_figure, "irr": irr_figure, "projection": projection_figure}
"""The figures of the whole study, by the name of their file."""


def _errors(study: Study, set_name: str, group: str | None) -> np.ndarray:
    """The guard's errors of one set, or of one group in it, without missing ones."""
    rows = study.generations[study.generations["set"] == set_name]
    chosen = rows if group is None else rows[rows["group"] == group]
    return chosen["guard_error"].dropna().to_numpy(dtype=float)


def _roc(axes: Axes, negatives: np.ndarray, positives: np.ndarray, limit: float | None, style: Style) -> Line2D:
    """Draw the curve over all thresholds, and the point at the calibrated one."""
    thresholds = np.unique(np.concatenate([negatives, positives, [np.inf, -np.inf]]))[::-1]
    if len(thresholds) > MOST_THRESHOLDS:
        thresholds = thresholds[np.linspace(0, len(thresholds) - 1, MOST_THRESHOLDS).astype(int)]
    false, true = (share_above(scores, thresholds) for scores in (negatives, positives))
    (line,) = axes.plot(false, true, color=style.colour, linestyle=style.dash, linewidth=1.8)
    if limit is not None:
        point = [(negatives > limit).mean()], [(positives > limit).mean()]
        axes.plot(*point, color=style.colour, marker=style.marker, markersize=7, markeredgecolor="white", zorder=4)
    return line


def share_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """The share of the scores above each threshold, NaN where there are no scores."""
    if not len(scores):
        return np.full(len(thresholds), np.nan)
    return np.asarray(1 - np.searchsorted(np.sort(scores), thresholds, side="right") / len(scores))


def _auroc_label(study: Study, name: str, count: int) -> str:
    rows = study.detection
    guard = rows["detector"].iloc[0] if len(rows) else None
    found = rows[(rows["detector"] == guard) & (rows["group"] == name) & (rows["subset"] == "all")]
    if not len(found):
        return f"{_key(name)}n = {count}: {NOT_MEASURED}"
    row = found.iloc[0]
    cell = area(row["auroc"], row["auroc_low"], row["auroc_high"], int(row["positives"]), int(row["negatives"]))
    interval = f" ({cell.interval})" if cell.interval else ""
    return f"{_key(name)}n = {count}: {cell.value}{interval}"


def _key(name: str) -> str:
    """A group's name in the key; a long one has a line of its own."""
    said = short(name_of(name), 44)
    return f"{said}, " if len(said) <= 20 else f"{said}\n  "
