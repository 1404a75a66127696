"""What hardened guards make of each attack that some of their material resembles, fitted without those kinds.

In: guards fitted without some kinds, and their errors. Out: a tidy table. Attacks that nothing of the material
resembles are in the study's other tables alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from demur.studies.hardening import Hardened
from demur.studies.study.derivers import Derived
from demur.studies.study.hardened import FOLDER, judged_by, name_of
from demur.studies.study.tables.detection import COLUMNS, detection_table
from demur.studies.study.tables.false_positives import false_positive_table

if TYPE_CHECKING:
    import pandas as pd

LEFT_OUT = f"{FOLDER}_left_out"
"""The name of the table."""
FLAGGED = {"value": "flagged", "low": "flagged_low", "high": "flagged_high"}


def left_out_table(hardened: Hardened, derived: Derived, generations: pd.DataFrame) -> pd.DataFrame:
    """The hardened detectors on each attack, without the kinds that resemble it.

    Columns as of the table "detection", left_out (the kinds, with commas) and flagged, flagged_low, flagged_high (share
    of the harmless test prompts, of which there are `negatives`).
    """
    import pandas as pd

    parts = []
    for attack, kinds in hardened.settings["resembling"].items():
        if not kinds:
            continue
        detectors, _ = judged_by(hardened.without[tuple(kinds)], derived, name_of(hardened, kinds))
        rows = detection_table(detectors, generations)
        harmless = false_positive_table(detectors, generations).rename(columns=FLAGGED)
        own = rows[rows["group"] == attack].assign(left_out=", ".join(kinds))
        parts.append(own.merge(harmless[["detector", *FLAGGED.values()]], on="detector"))
    columns = [*COLUMNS, "left_out", *FLAGGED.values()]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)
