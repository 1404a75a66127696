"""What a check found: a row a claim, with the value that was measured and the tolerance it is held against.

In: rows. Out: a table, JSON-ready values and one verdict. Nothing is measured here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["ok", "failed", "not run", "stated"]


@dataclass(frozen=True)
class Row:
    """One claim and what became of it.

    name : short and unique within a check. measured : what was run and compared.
    value : the result in words; numbers : the same for programs. tolerance : what `value` is held against.
    outcome : "ok", "failed", "not run" (`note` says why) or "stated" (a cost, which is not judged).
    """

    name: str
    measured: str
    value: str = ""
    tolerance: str = ""
    outcome: Outcome = "ok"
    note: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """The rows of one check, and what they are of.

    model : its name; fingerprint : `Model.fingerprint`. quick : whether this was the short form.
    seconds : wall time of the whole check, loading excluded.
    """

    model: str
    fingerprint: str
    family: str
    device: str
    dtype: str
    versions: Mapping[str, str]
    quick: bool
    seconds: float
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """True where no row failed; rows that were not run say so and do not count."""
        return not self.failed

    @property
    def failed(self) -> list[Row]:
        """The rows that failed."""
        return [row for row in self.rows if row.outcome == "failed"]

    @property
    def table(self) -> pd.DataFrame:
        """A row a claim, with the columns name, measured, value, tolerance, outcome, note."""
        import pandas as pd

        names = ["name", "measured", "value", "tolerance", "outcome", "note"]
        return pd.DataFrame([{name: getattr(row, name) for name in names} for row in self.rows], columns=names)

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        counts = {kind: sum(row.outcome == kind for row in self.rows) for kind in ("ok", "failed", "not run")}
        said = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        return f"{self.model} ({self.family}, {self.dtype} on {self.device}): {said}, in {self.seconds:.0f} s"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values; a number that is not finite is None."""
        rows = [{**vars(row), "numbers": _finite(row.numbers)} for row in self.rows]
        return {**vars(self), "versions": dict(self.versions), "ok": self.ok, "rows": rows}


def _finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if math.isfinite(value) else None for name, value in numbers.items()}
