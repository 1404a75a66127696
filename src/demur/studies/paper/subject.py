"""One model as the protocol sees it: its study, its recordings, and its weights under the other order.

In: the folder that `run_paper` records into. Out: what every table of the protocol is computed from. The tables share
one set of columns, so that they can be read, joined and printed alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from demur.guards import DirectionGuard, SRIGuard, StreamingGuard
from demur.guards.base import Guard
from demur.recording import Recording
from demur.signal import Anchors
from demur.studies.study.derivers import Sets, derived_from
from demur.studies.study.detectors import (
    DIRECTION_FILE,
    GUARD_FILE,
    LOOKS_FILE,
    STREAMING_DIRECTION_FILE,
    STREAMING_FILE,
)
from demur.studies.study.made import Made
from demur.studies.study.results import Study

AnyGuard = TypeVar("AnyGuard", bound=Guard)

Row = tuple[str, str, Any, float | None]
"""Group, measure, a `Rate` or anything with its fields, and the published value."""

TEXT_INPUT, LAST_INPUT = "text-level signal", "SRI, last layer"
"""What the study's own guards were fitted on, by the names of the ablation."""

COLUMNS = ["model", "group", "measure", "value", "low", "high", "count", "published", "note"]


@dataclass(frozen=True)
class Subject:
    """A model under the protocol.

    study : under its own sampler. ordered : the same weights from left to right, None for models that know no other
    order. Where this process has just made the study, nothing of it is read or fitted again.
    """

    name: str
    study: Study
    ordered: Study | None = None

    @property
    def path(self) -> Path:
        """The folder of everything of this model."""
        return self.study.path.parent

    @property
    def made(self) -> Made | None:
        """What the study was made from, where this process has just made it."""
        return self.study.made

    @cached_property
    def recordings(self) -> Mapping[str, Recording]:
        """The recordings of the study by prompt set."""
        if self.made:
            return self.made.recordings
        return {folder.name: Recording(folder) for folder in sorted((self.study.path / "recordings").iterdir())}

    @cached_property
    def anchors(self) -> Anchors:
        """The study's anchors, at every layer that was kept."""
        return self.made.anchors if self.made else Anchors.load(self.study.path / "anchors.safetensors")

    @cached_property
    def signals(self) -> tuple[Mapping[int, Sets], Sets]:
        """The signals of every layer by its index, and the text-level ones, by prompt set."""
        if self.made:
            return self.made.by_layer, self.made.texts
        kept = {name: one for name, one in self.recordings.items() if not name.startswith("anchors_")}
        derived = derived_from(kept, self.anchors)
        return derived.by_layer, derived.texts

    @cached_property
    def guard(self) -> SRIGuard:
        """The study's SRI Guard, fitted and calibrated."""
        return self._guard(SRIGuard, GUARD_FILE)

    @cached_property
    def direction(self) -> DirectionGuard:
        """The study's direction guard."""
        return self._guard(DirectionGuard, DIRECTION_FILE)

    @cached_property
    def streaming(self) -> StreamingGuard:
        """The study's streaming guard on the signal."""
        return self._guard(StreamingGuard, STREAMING_FILE)

    @cached_property
    def watched_direction(self) -> tuple[DirectionGuard, StreamingGuard]:
        """The direction at the study's looks, and the streaming guard that watches it."""
        return self._guard(DirectionGuard, LOOKS_FILE), self._guard(StreamingGuard, STREAMING_DIRECTION_FILE)

    def fitted_on(self, name: str) -> Guard | None:
        """The guard that the study fitted on this input, `TEXT_INPUT` or `LAST_INPUT`; None where it is not at hand."""
        if self.made is None or name not in (TEXT_INPUT, LAST_INPUT):
            return None
        return self.made.text_guard if name == TEXT_INPUT else self.guard

    def _guard(self, kind: type[AnyGuard], file: str) -> AnyGuard:
        made = self.made.guards.get(file) if self.made else None
        return made if isinstance(made, kind) else kind.load(self.study.path / file)

    @property
    def attacks(self) -> list[str]:
        """The names of the attacks, in order of appearance."""
        rows = self.study.generations
        return list(dict.fromkeys(rows.loc[rows["set"] == "test_attacks", "group"]))

    def table(self, rows: Sequence[Row], notes: Sequence[str] | None = None) -> pd.DataFrame:
        """A tidy table of rows (group, measure, rate, published value), and what is to be said of each, if anything."""
        found = [
            [self.name, group, measure, rate.value, rate.low, rate.high, int(rate.count), published, note]
            for (group, measure, rate, published), note in zip(rows, notes or [""] * len(rows), strict=True)
        ]
        return pd.DataFrame(found, columns=COLUMNS).astype({"published": float})
