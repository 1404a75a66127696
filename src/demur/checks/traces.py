"""Two runs of the same prompts, compared step by step.

In: recordings, or tokens and states from elsewhere. Out: how far the states are apart while the tokens agree, and
whether a first difference of tokens was a near-tie of the network's logits. What is a near-tie is asked of the caller.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch

from demur.checks.result import Row
from demur.recording import Recording

NAMED = 3
"""How many of the rows with other tokens a note names."""
FIRST_ALONE = "in half precision rounding decides some draws, and later steps follow them"
"""Why step 1 alone is compared."""


class Trace(NamedTuple):
    """A generation: tokens int and committed bool ``[steps, response]``, phi float32 ``[steps, layers, width]``."""

    tokens: np.ndarray
    committed: np.ndarray
    phi: np.ndarray

    @property
    def answer(self) -> list[int]:
        """The token ids that were committed in the end."""
        return [int(token) for token in self.tokens[-1][self.committed[-1]]]


Gap = Callable[[list[int], Trace, Trace, int], float]
"""How far from a tie the choice at a step was, from the prompt, two traces that agree before it, and its place."""


def traces_of(recording: Recording) -> list[Trace]:
    """The trace of every prompt of a recording, in the order of the prompts."""
    phi = recording.phi
    tokens = [recording.steps_tokens(row) for row in range(len(recording))]
    return [Trace(np.asarray(one.predicted), one.is_committed, phi[row]) for row, one in enumerate(tokens)]


@dataclass(frozen=True)
class Tolerance:
    """How far two computations of the same thing may be apart in a dtype.

    states : float32: largest |difference| of any component, relative where the component is above 1. Half precision:
        norm of the difference over the norm of the state, since single components carry few digits.
    tie : two tokens whose logits are closer than this share of the largest |logit| may change places.
    """

    states: float
    relative: bool
    tie: float

    @classmethod
    def of(cls, dtype: torch.dtype) -> Tolerance:
        """The tolerance of a dtype of weights; dtypes that are not named here count as bfloat16."""
        named = {
            torch.float64: cls(1e-3, relative=False, tie=2e-5),
            torch.float32: cls(1e-3, relative=False, tie=2e-5),
            torch.float16: cls(1e-2, relative=True, tie=4e-3),
        }
        return named.get(dtype, cls(5e-2, relative=True, tie=3e-2))

    def distance(self, one: np.ndarray, other: np.ndarray) -> float:
        """How far states ``[..., width]`` are apart; infinite where they are not finite or of other shapes."""
        if one.shape != other.shape or not (np.isfinite(one).all() and np.isfinite(other).all()):
            return float("inf")
        if not one.size:
            return 0.0
        difference = np.abs(one.astype(np.float64) - other)
        if self.relative:
            scale = np.linalg.norm(other.astype(np.float64), axis=-1)
            return float((np.linalg.norm(difference, axis=-1) / np.maximum(scale, 1e-12)).max())
        return float((difference / np.maximum(1.0, np.abs(other))).max())

    def __str__(self) -> str:
        what = "relative |Δphi|" if self.relative else "|Δphi|"
        return (
            f"{what} ≤ {self.states:g}; tokens equal but at near-ties (top logits within {self.tie:g} of the largest)"
        )


@dataclass
class Tally:
    """Adds up comparisons of single rows and makes a `Row` of them.

    first_alone : states of step 1 alone are compared, for the reason of `FIRST_ALONE`.
    """

    tolerance: Tolerance
    gap: Gap
    first_alone: bool = False
    rows: int = 0
    worst: float = 0.0
    ties: int = 0
    apart: list[str] = field(default_factory=list)

    def add(self, label: str, prompt: list[int], one: Trace, other: Trace) -> None:
        """Compare two generations of a prompt: states while tokens agree, and whether a first difference is a tie."""
        self.rows += 1
        if self.first_alone:
            self.worst = max(self.worst, self.tolerance.distance(one.phi[:1], other.phi[:1]))
            return
        first = first_difference(one, other)
        upto = len(one.phi) if first is None else first
        self.worst = max(self.worst, self.tolerance.distance(one.phi[:upto], other.phi[:upto]))
        if first is not None:
            self.differs(label, first, self.gap(prompt, one, other, first))

    def differs(self, label: str, step: int, gap: float) -> None:
        """Count a difference of tokens at a step (from 0) whose choice was `gap` from a tie."""
        if gap <= self.tolerance.tie:
            self.ties += 1
        else:
            self.apart.append(f"{label} from step {step + 1} on")

    def row(self, name: str, measured: str, note: str = "", *, states: bool = True) -> Row:
        """The verdict. states : whether states were compared too, not tokens alone."""
        if self.first_alone:
            return self._first_row(name, measured)
        same = self.rows - self.ties - len(self.apart)
        ties = f", {self.ties} part at a near-tie" if self.ties else ""
        value = f"tokens equal in {same} of {self.rows} rows{ties}"
        numbers: dict[str, float] = {"rows": self.rows, "same": same, "ties": self.ties, "apart": len(self.apart)}
        if states:
            value = f"{'relative ' if self.tolerance.relative else ''}max |Δphi| {self.worst:.1e}; {value}"
            numbers["distance"] = self.worst
        failed = bool(self.apart) or (states and not self.worst <= self.tolerance.states)
        if self.apart:
            more = f" and {len(self.apart) - NAMED} more" if len(self.apart) > NAMED else ""
            note = "; ".join(filter(None, [f"other tokens: {', '.join(self.apart[:NAMED])}{more}", note]))
        limit = str(self.tolerance) if states else str(self.tolerance).partition("; ")[2]
        return Row(name, measured, value, limit, "failed" if failed else "ok", note, numbers)

    def _first_row(self, name: str, measured: str) -> Row:
        value = (
            f"{'relative ' if self.tolerance.relative else ''}max |Δphi| {self.worst:.1e} at step 1 of {self.rows} rows"
        )
        numbers = {"rows": float(self.rows), "distance": self.worst}
        failed, limit = not self.worst <= self.tolerance.states, str(self.tolerance).partition("; ")[0]
        note = f"step 1 alone is compared: {FIRST_ALONE}"
        return Row(name, measured, value, limit, "failed" if failed else "ok", note, numbers)


def first_difference(one: Trace, other: Trace) -> int | None:
    """The first step (from 0) at which other tokens are committed, None where there is none."""
    mine = np.where(one.committed, one.tokens, -1)
    theirs = np.where(other.committed, other.tokens, -1)
    if mine.shape != theirs.shape:
        return 0
    differing = np.flatnonzero((mine != theirs).any(axis=1))
    return int(differing[0]) if len(differing) else None
