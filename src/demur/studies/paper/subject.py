"""One model as the protocol sees it: its study, its recordings, and its weights under the other order.

In: the folder that `run_paper` records into. Out: what every table of the protocol is computed from. The tables share
one set of columns, so that they can be read, joined and printed alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from demur.guards import DirectionGuard, SRIGuard, StreamingGuard
from demur.recording import Recording
from demur.signal import Anchors
from demur.studies.study.detectors import (
    DIRECTION_FILE,
    GUARD_FILE,
    LOOKS_FILE,
    STREAMING_DIRECTION_FILE,
    STREAMING_FILE,
)
from demur.studies.study.results import Study

Row = tuple[str, str, Any, float | None]
"""Group, measure, a `Rate` or anything with its fields, and the published value."""

COLUMNS = ["model", "group", "measure", "value", "low", "high", "count", "published", "note"]


@dataclass(frozen=True)
class Subject:
    """A model under the protocol.

    study : under its own sampler. ordered : the same weights from left to right, None for models that know no other
    order.
    """

    name: str
    study: Study
    ordered: Study | None = None

    @property
    def path(self) -> Path:
        """The folder of everything of this model."""
        return self.study.path.parent

    @cached_property
    def recordings(self) -> dict[str, Recording]:
        """The recordings of the study by prompt set."""
        return {folder.name: Recording(folder) for folder in sorted((self.study.path / "recordings").iterdir())}

    @cached_property
    def anchors(self) -> Anchors:
        """The study's anchors, at every layer that was kept."""
        return Anchors.load(self.study.path / "anchors.safetensors")

    @cached_property
    def guard(self) -> SRIGuard:
        """The study's SRI Guard, fitted and calibrated."""
        return SRIGuard.load(self.study.path / GUARD_FILE)

    @cached_property
    def direction(self) -> DirectionGuard:
        """The study's direction guard."""
        return DirectionGuard.load(self.study.path / DIRECTION_FILE)

    @cached_property
    def streaming(self) -> StreamingGuard:
        """The study's streaming guard on the signal."""
        return StreamingGuard.load(self.study.path / STREAMING_FILE)

    @cached_property
    def watched_direction(self) -> tuple[DirectionGuard, StreamingGuard]:
        """The direction at the study's looks, and the streaming guard that watches it."""
        return (
            DirectionGuard.load(self.study.path / LOOKS_FILE),
            StreamingGuard.load(self.study.path / STREAMING_DIRECTION_FILE),
        )

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
