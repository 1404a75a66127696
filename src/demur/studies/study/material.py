"""`Material`: what the tables of a study are made from, and `STUDY_TABLES`, where they register.

In: nothing; `analysis` fills it. Out: one object that each table is handed. Nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from demur.studies.study.detection import Detector
from demur.studies.table import Tables

if TYPE_CHECKING:
    import pandas as pd

    from demur.recording import Recording
    from demur.signal import Anchors
    from demur.studies.hardening import Hardened
    from demur.studies.study.derivers import Derived


@dataclass(frozen=True)
class Material:
    """All that is known of a study's generations.

    recordings : by prompt set, those of the anchors left out. derived : what was computed from their shards.
    generations, signals, text_signals : as in `Study`, a row a generation. detectors : each with a score a generation.
    stops : for each streaming guard, alpha and the step at which each generation would be stopped, 0 for never.
    judged : the rates that the judge gives, in the columns of the table "rates". hardened : the guards that were fitted
    on the shipped material, where the study was asked for them.
    """

    recordings: Mapping[str, Recording]
    anchors: Anchors
    derived: Derived
    generations: pd.DataFrame
    signals: np.ndarray
    text_signals: np.ndarray
    detectors: Sequence[Detector]
    stops: Mapping[str, tuple[float, np.ndarray]]
    judged: pd.DataFrame
    hardened: Hardened | None = None

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return int(self.signals.shape[1])


TAKEN = frozenset(
    {"settings", "generations", "scores", "signals", "text_signals", "references", "tables", "path", "made"}
    | {"steps", "missing", "save", "with_tables", "hardening", "hardening_left_out"}
)
"""What a `Study` itself holds under these names."""

STUDY_TABLES: Tables[Material] = Tables("table of a study", TAKEN)
"""Every table of a study by name; see `demur.studies.table.Tables.table`."""
