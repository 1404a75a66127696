"""Sums of phi over refused and over answered prompts: all that anchors need of a model's states.

In: phi a batch at a time, from a recording or straight from a model. Out: two sums in float64 and how many
prompts went into each, and whether they are enough. Which of them becomes an anchor is left to `demur.signal.anchors`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import InputError
from demur.provenance import Provenance

if TYPE_CHECKING:
    import pandas as pd


class RecordingLike(Protocol):
    """What anchors and signals need of a recording."""

    @property
    def provenance(self) -> Provenance:
        """What the recording was made from; its layers name phi's third axis."""

    @property
    def table(self) -> pd.DataFrame:
        """A row a prompt, with a column `refused` (boolean, missing where there is no text)."""

    def phi_batches(self) -> Iterator[tuple[NDArray[np.integer[Any]], NDArray[np.float32]]]:
        """Pairs of rows of the table `[n]` and their phi `[n, steps, layers, width]`, each row once."""


@dataclass(frozen=True)
class AnchorCount:
    """How many prompts of one side were seen, how many of them were refused, and how many made the anchor."""

    seen: int
    refused: int
    kept: int

    def __str__(self) -> str:
        share = f" ({self.refused / self.seen:.0%})" if self.seen else ""
        return f"{self.refused} of {self.seen} refused{share}, {self.kept} left"


class AnchorSums:
    """Running sums of phi over the refused and over the answered prompts of one prompt set.

    refused, answered : how many prompts of each were seen.
    shape : `(steps, layers, width)`, None before the first update.
    """

    def __init__(self) -> None:
        self.refused = 0
        self.answered = 0
        self.shape: tuple[int, ...] | None = None
        self._sums: NDArray[np.float64] = np.zeros((2, 0))

    @property
    def seen(self) -> int:
        """How many prompts were seen."""
        return self.refused + self.answered

    def update(self, phi: ArrayLike, refused: ArrayLike) -> None:
        """Add a batch.

        phi : `[n, steps, layers, width]`, NumPy or a torch tensor in memory; finite.
        refused : bool `[n]`.
        Raises `InputError` for shapes that do not fit and for values that are not finite; nothing is added then.
        """
        phi, verdicts = np.asarray(phi), np.asarray(refused)
        if phi.ndim != 4 or verdicts.shape != phi.shape[:1] or verdicts.dtype != np.bool_:
            raise InputError(
                f"found phi {phi.shape} and refused {verdicts.dtype} {verdicts.shape}; "
                "expected phi [n, steps, layers, width] and one boolean for each of its n prompts."
            )
        if self.shape not in (None, phi.shape[1:]):
            raise InputError(
                f"found phi with [steps, layers, width] {phi.shape[1:]} after {self.shape}; "
                "expected one shape throughout. Record all prompts with one model and sampler."
            )
        with np.errstate(over="ignore", invalid="ignore"):
            added = np.stack([phi[chosen].sum(axis=0, dtype=np.float64) for chosen in (~verdicts, verdicts)])
        if not np.isfinite(added).all():
            rows = np.flatnonzero(~np.isfinite(phi).all(axis=(1, 2, 3))).tolist()
            raise InputError(f"phi is not finite or too large to sum (rows {rows} of the batch); leave them out.")
        self._sums = added if self.shape is None else self._sums + added
        self.shape = phi.shape[1:]
        self.refused += int(verdicts.sum())
        self.answered += int((~verdicts).sum())

    def mean(self, *, refused: bool) -> NDArray[np.float32]:
        """Mean phi of the refused (or the answered) prompts, `[steps, layers, width]`; needs at least one."""
        count = self.refused if refused else self.answered
        mean: NDArray[np.float32] = (self._sums[int(refused)] / count).astype(np.float32)
        return mean

    @classmethod
    def of(cls, recording: RecordingLike, refused: ArrayLike | None, name: str) -> AnchorSums:
        """The sums of a whole recording, read a batch at a time.

        refused : bool `[prompts]` in place of the table's column. name : the side, for messages.
        """
        verdicts = _verdicts(recording, refused, name)
        sums = cls()
        for rows, phi in recording.phi_batches():
            sums.update(phi, verdicts[rows])
        if sums.seen != len(verdicts):
            raise InputError(
                f"the {name} recording holds phi of {sums.seen} of its {len(verdicts)} prompts; record it again."
            )
        return sums


def require_recording(given: Any, what: str) -> None:
    """Refuse what is no recording where one is expected, such as a path or an array."""
    if isinstance(given, str | PathLike):
        raise InputError(f"{what} is the path {str(given)!r:.200}; give demur.Recording(path)")
    if not all(hasattr(given, name) for name in ("phi_batches", "table", "provenance")):
        kind = f"an array of shape {given.shape}" if hasattr(given, "shape") else f"a {type(given).__name__}"
        raise InputError(f"{what} is {kind}; give a demur.Recording, or bare states to Anchors.score and AnchorSums")


def _verdicts(recording: RecordingLike, refused: ArrayLike | None, name: str) -> NDArray[np.bool_]:
    table = recording.table
    if refused is not None:
        given = np.asarray(refused)
        if given.dtype != np.bool_ or given.shape != (len(table),):
            raise InputError(
                f"{name}_refused is {given.dtype} {given.shape}; expected one boolean for each of "
                f"the {len(table)} prompts of the {name} recording."
            )
        return given
    if "refused" not in table:
        raise InputError(f"the {name} recording has no column 'refused'; give {name}_refused=, one boolean a prompt.")
    missing = table["refused"].isna().to_numpy(dtype=bool)
    if missing.any():
        raise InputError(
            f"{int(missing.sum())} of {len(table)} prompts of the {name} recording have no text to judge "
            f"(the first is row {int(np.flatnonzero(missing)[0])}); give {name}_refused=, one boolean a prompt."
        )
    return table["refused"].to_numpy(dtype=bool)


def require_enough(counts: Mapping[str, AnchorCount], minimum: int, least_share: float) -> None:
    """Raise `InputError` where a side keeps fewer than `minimum` prompts, or less than `least_share` of those seen."""
    short: list[Literal["harmless", "harmful"]] = [
        side for side in ("harmless", "harmful") if counts[side].kept < max(minimum, least_share * counts[side].seen)
    ]
    if not short:
        return
    seen_too_few = [side for side in short if counts[side].seen < minimum]
    if seen_too_few:
        raise InputError(
            f"anchors need at least {minimum} prompts a side, and there are {counts['harmless'].seen} harmless and "
            f"{counts['harmful'].seen} harmful ones; give more {' and '.join(seen_too_few)} prompts (a --limit below "
            f"{minimum} is too low)"
        )
    refused = {side: counts[side].refused / counts[side].seen for side in ("harmless", "harmful")}
    if refused["harmless"] >= 0.5 > refused["harmful"]:
        raise InputError(
            f"more harmless than harmful prompts were refused, {refused['harmless']:.0%} against "
            f"{refused['harmful']:.0%}; are the two swapped? Give the harmless prompts first"
        )
    habit = {"harmful": "hardly refuses harmful prompts", "harmless": "answers few harmless prompts"}
    raise InputError(
        f"too few prompts are left for anchors, {minimum} a side and {least_share:.0%} of those seen are needed: "
        f"harmless prompts {counts['harmless']}; harmful prompts {counts['harmful']}. "
        f"This model {' and '.join(habit[side] for side in short)}: use more {' and '.join(short)} prompts, "
        "others, or another model."
    )
