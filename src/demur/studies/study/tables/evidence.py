"""Rules of stopping, compared: one step that is far out, or several of the last few.

In: the signals of a study. Out: a tidy table, a row a rule and group. Every rule is trained and calibrated on the same
harmless generations and keeps the same promise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from demur.dynamics import FIELDS
from demur.guards import StreamingGuard
from demur.guards.calibration import warned_already
from demur.studies.study.detectors import STREAMING
from demur.studies.study.directions import CALIBRATION, TRAIN
from demur.studies.study.hardened import STREAMING_HARDENED, under_rule
from demur.studies.study.material import STUDY_TABLES, Material
from demur.studies.study.tables.streaming import streaming_table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

RULES = ((1, 1), (2, 2), (2, 3), (3, 5))
"""At least so many of the last so many steps."""
COLUMNS = ["detector", "group", "alpha", *FIELDS, "median_step", "median_saved"]


@STUDY_TABLES.table(
    "evidence",
    columns=COLUMNS,
    title="Rules of stopping: evidence at several steps",
    note="All rules promise the same. More steps of evidence raise the threshold less, and stop later.",
)
@warned_already()
def evidence(material: Material) -> pd.DataFrame:
    """The study's streaming guard under every rule, and the hardened one, whose rules count looks."""
    sets = material.generations["set"].to_numpy(dtype=str)
    alpha = material.stops[STREAMING][0]
    stops = {}
    for at_least, of_last in RULES:
        if of_last > material.steps:
            continue
        guard = StreamingGuard(alpha, at_least=at_least, of_last=of_last)
        guard.fit(material.signals[sets == TRAIN], calibration=material.signals[sets == CALIBRATION])
        stops[f"{STREAMING}, {at_least} of the last {of_last}"] = alpha, guard.stops(material.signals)
    stops |= _hardened(material) if STREAMING_HARDENED in material.stops else {}
    return streaming_table(stops, material.generations, material.steps)


def _hardened(material: Material) -> dict[str, tuple[float, np.ndarray]]:
    """The hardened streaming guard under every rule; it has ten looks, which is more than any rule asks for."""
    alpha, hardened = material.stops[STREAMING_HARDENED][0], material.hardened
    assert hardened is not None  # it has stops
    return {
        f"{STREAMING_HARDENED}, {at_least} of the last {of_last} looks": (
            alpha,
            under_rule(hardened, material.derived, at_least, of_last, material.steps),
        )
        for at_least, of_last in RULES
    }
