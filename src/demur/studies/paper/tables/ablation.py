"""Table 4: the same guard on less: the text, the first step, other layers.

In: a subject whose recordings keep several layers. Out: a tidy table of AUROCs, attacks against harmless test prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from demur.dynamics import Rate
from demur.studies.paper.material import OF_ATTACKS, PAPER_TABLES, PaperMaterial
from demur.studies.paper.published import ABLATION
from demur.studies.paper.subject import COLUMNS, TEXT_INPUT, Row, Subject
from demur.studies.study.detection import auroc
from demur.studies.study.detectors import fit_guard

Signals = Mapping[str, np.ndarray]
MEAN = "mean over attacks"


@PAPER_TABLES.table(
    "table_4_ablation",
    columns=COLUMNS,
    title="Table 4: AUROC of the guard on less",
    needs=OF_ATTACKS,
    place=4,
    areas=True,
)
def ablation(material: PaperMaterial) -> pd.DataFrame:
    """Table 4 of a model."""
    return ablation_table(material.subject, quantile=material.quantile, seed=material.seed)


def ablation_table(subject: Subject, *, quantile: float = 0.99, seed: int = 0) -> pd.DataFrame:
    """AUROC of the SRI Guard on each input, of every attack and their mean.

    The interval of the mean is the mean of the bounds: the attacks share their harmless prompts.
    """
    table = subject.recordings["test_attacks"].table if subject.attacks else None
    rows: list[Row] = []
    for name, signals in _inputs(subject):
        if table is None:
            break
        guard = subject.fitted_on(name) or fit_guard(signals, quantile, seed)
        negatives, positives = guard.errors(signals["test_harmless"]), guard.errors(signals["test_attacks"])
        groups = table["group"].to_numpy(dtype=str)
        found = [auroc(negatives, positives[groups == attack]) for attack in subject.attacks]
        value, low, high = np.mean([[one.value, one.low, one.high] for one in found], axis=0)
        mean = Rate(float(value), float(low), float(high), len(positives))
        rows.append((MEAN, name, mean, ABLATION.get(name)))
        rows += [(attack, name, rate, None) for attack, rate in zip(subject.attacks, found, strict=True)]
    return subject.table(rows)


def _inputs(subject: Subject) -> Iterator[tuple[str, Signals]]:
    by_layer, texts = subject.signals
    yield TEXT_INPUT, texts
    last = max(by_layer)
    for layer, signals in by_layer.items():
        if layer == last:
            yield "first step alone", {name: np.asarray(sigma)[:, :1] for name, sigma in signals.items()}
        yield f"SRI, {_named(layer, last)} layer", signals


def _named(layer: int, last: int) -> str:
    return {last // 4: "quarter", last // 2: "middle", 1: "first", last: "last"}.get(layer, f"{layer}th")
