"""The section of a study's page that says whether the model was measured rightly.

In: what the study keeps of its quick check. Out: a sentence and a table; for studies that were made before there was a
check, a sentence that says so.
"""

from __future__ import annotations

from typing import Any

from demur.report.parts.labels import Cell, plain
from demur.report.parts.tables import Table
from demur.studies.study.results import Study

COLUMNS = [("", "found"), ("", "tolerance"), ("", "outcome")]


def check_section(study: Study) -> dict[str, Any]:
    """The verdict as `sentence`, and the rows as `table`, None where nothing was checked."""
    kept = study.settings.get("check") or {}
    rows = [(plain(row["name"]), _cells(row)) for row in kept.get("rows", ())]
    table = Table("The quick check, made on this model before anything was recorded", "check", COLUMNS, rows)
    return {"sentence": plain(kept.get("sentence", "not measured")), "table": table if rows else None}


def _cells(row: dict[str, Any]) -> list[Cell]:
    found = "; ".join(filter(None, [row.get("value"), row.get("note")]))
    return [Cell(plain(text)) for text in (found, row.get("tolerance", ""), row["outcome"])]
