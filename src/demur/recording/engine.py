"""What an engine must offer so that `record` generates with it in place of demur's own loop.

In: what `demur.recording.generate.batches` is given. Out: the same batches. How an engine makes them is its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from demur.looks import Looks
from demur.models import Model
from demur.recording.encoded import Encoded
from demur.recording.generate import Batch
from demur.samplers import Sampler


class Engine(Protocol):
    """Another way to generate, with the tokens and states of demur's own."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Packages that take part, for the provenance."""

    def require(self, model: Model, sampler: Sampler) -> None:
        """Raise `InputError` for what the engine cannot record, before anything is written."""

    def batches(
        self,
        model: Model,
        encoded: Sequence[Encoded],
        sampler: Any,
        layers: Sequence[int],
        batch_size: int,
        ids: Sequence[str],
        looks: Looks | None = None,
    ) -> Iterator[Batch]:
        """See `demur.recording.generate.batches`; the rows may come in any order."""
