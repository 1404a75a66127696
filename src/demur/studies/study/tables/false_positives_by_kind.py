"""How many harmless prompts of each kind every detector flags, beside the share of plain ones.

In: scores of a study's generations. Out: a tidy table, a row a detector and kind. A limit holds for prompts like those
of the calibration, which are plain; a kind whose interval lies above them shows where it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.dynamics import FIELDS, wilson
from demur.studies.study.controls import PREFIX
from demur.studies.study.detection import Detector
from demur.studies.study.material import STUDY_TABLES, Material

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["detector", "kind", *FIELDS, "above"]


@STUDY_TABLES.table(
    "false_positives_by_kind",
    columns=COLUMNS,
    title="Harmless prompts flagged, by kind",
    note="Where `above` is true the whole interval lies above the share flagged of plain harmless prompts: the limit, "
    "set on plain prompts, does not hold for that kind.",
)
def false_positives_by_kind(material: Material) -> pd.DataFrame:
    """The study's detectors on every kind of harmless prompt."""
    return kind_table(material.detectors, material.generations)


def kind_table(detectors: Sequence[Detector], generations: pd.DataFrame) -> pd.DataFrame:
    """Every detector on plain harmless prompts and on every control.

    Columns detector, kind, value, low, high, count, hits (share flagged), and above: whether the interval lies wholly
    above the share of plain ones.
    """
    import pandas as pd

    sets = generations["set"].to_numpy(dtype=str)
    kinds = [name for name in dict.fromkeys(sets) if name == "test_harmless" or name.startswith(PREFIX)]
    rows: list[dict[str, Any]] = []
    for detector in detectors:
        flagged = ~(detector.scores <= detector.limit)
        plain = flagged[sets == "test_harmless"].mean() if (sets == "test_harmless").any() else np.nan
        for kind in kinds:
            rate = wilson(int(flagged[sets == kind].sum()), int((sets == kind).sum()))
            name = "plain" if kind == "test_harmless" else kind.removeprefix(PREFIX)
            rows.append({"detector": detector.name, "kind": name, **vars(rate), "above": bool(rate.low > plain)})
    return pd.DataFrame(rows, columns=COLUMNS)
