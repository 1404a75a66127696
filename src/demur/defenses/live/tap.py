"""The tap: which of the generations that run together a streaming guard stops, each at a step of its own.

In: the states of some requests' newest tokens, from whatever engine runs them, or states that a sampler has pooled.
Out: which requests to stop, and a verdict on each. Reading the states out of a network, and ending a request, are left
to the engine: transformers' `generate` and continuous batching, vLLM, demur's own samplers.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from demur.defenses.live.watching import Reading, Watching
from demur.errors import InputError
from demur.guards import StreamingGuard


@dataclass(frozen=True)
class Verdict:
    """What a guard has said of one generation so far.

    step : the latest step that was seen, counted from 1. looks : at how many of them the guard looked. score : that of
    the latest look, NaN before the first. stopped_at : the step that stopped it, 0 where none has.
    """

    step: int
    looks: int
    score: float
    stopped_at: int


class Tap:
    """Follows the requests of one engine::

        tap = Tap(Reading.of(source, guard), guard)
        tap.open("a")
        stop = tap.prompt(["a"], states)  # where tap.has_prompt: the states of the last prompt token
        stop = tap.take(["a"], states)  # after every token: states [rows, layers, width] of `tap.layers`
        verdict = tap.close("a")

    Requests are opened and closed at any time and told apart by their ids; a step of a request is one call of `take`
    or `judge` that names it. The decisions are those of `StreamingGuard.stops` on a recording. Memory is that of the
    most requests that were open at once. One thread at a time may use a tap.

    looked : bool ``[rows]``, at which requests of the latest call of `take` or `judge` the guard looked.

    Raises `InputError` for an id that is open already, is not open, or stands twice in one call: the requests of two
    calls are never mixed.
    """

    def __init__(self, reading: Reading, guard: StreamingGuard, requests: int = 16) -> None:
        """requests : how many are expected at once; room for more is made when they come."""
        self.watching = Watching(reading, guard, requests)
        self._rows: dict[Hashable, int] = {}
        self._free = list(range(requests))[::-1]
        self._steps = np.zeros(requests, dtype=np.int64)
        self._counts = np.zeros(requests, dtype=np.int64)  # of the tokens in each row's sum
        self._sums = torch.empty(0)  # of the states of each row's tokens, [rows, layers, width]
        self._window = (reading.looks and reading.looks.window) or 0
        self._held = torch.empty(0)  # the latest states of each row, [rows, window, layers, width]
        self.looked: NDArray[np.bool_] = np.zeros(0, dtype=bool)

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers whose states are needed, as in transformers' ``hidden_states``."""
        return self.watching.reading.layers

    @property
    def last_step(self) -> int:
        """The step behind which nothing is looked at any more, so that states need not be given."""
        return self.watching.reading.steps[-1]

    @property
    def has_prompt(self) -> bool:
        """Whether the guard looks at the prompt's own state, which `prompt` takes before the first token."""
        return self.watching.reading.steps[0] == 0

    @property
    def requests(self) -> list[Hashable]:
        """The ids that are open."""
        return list(self._rows)

    def open(self, request: Hashable) -> None:
        """Follow a new request, whose next step is 1."""
        if request in self._rows:
            raise InputError(f"request {request!r} is followed already; give every call requests of its own.")
        if not self._free:
            self._grow()
        row = self._free.pop()
        self._rows[request] = row
        self.watching.restart(np.array([row]))
        self._steps[row] = self._counts[row] = 0
        if self._sums.numel():
            self._sums[row] = 0

    def prompt(self, requests: Sequence[Hashable], states: torch.Tensor) -> NDArray[np.bool_]:
        """The states of the last prompt token ``[rows, layers, width]``: True where they alone stop a request."""
        return self.judge(requests, states, states, step=0)

    def take(self, requests: Sequence[Hashable], states: torch.Tensor) -> NDArray[np.bool_]:
        """One more token of each of these requests was fed: True where this or an earlier one stops it, ``[rows]``.

        states : ``[rows, layers, width]``, those of the tokens; phi is their mean over all tokens so far.
        """
        rows = self._require(requests, states)
        here, states = torch.as_tensor(rows, device=states.device), states.float()
        if not self._sums.numel():
            self._sums = torch.zeros((len(self._steps), *states.shape[1:]), device=states.device)
            self._held = states.new_zeros((len(self._steps), self._window, *states.shape[1:]))
        self._sums.index_add_(0, here, states)
        before = self._steps[rows]
        if self._window:
            self._held[here, torch.as_tensor(before % self._window, device=states.device)] = states
        self._steps[rows] = steps = before + 1
        self._counts[rows] += 1
        self.looked = due = self.watching.due(steps, rows)
        if due.any():
            phi, window = self._means(rows[due])
            self.watching.update(phi, steps[due], rows[due], window)
        return self.watching.stopped_at_look[rows] > 0

    def judge(
        self,
        requests: Sequence[Hashable],
        phi: torch.Tensor,
        window: torch.Tensor | None = None,
        *,
        step: int | None = None,
    ) -> NDArray[np.bool_]:
        """The same of states that a sampler has pooled over a step, phi ``[rows, layers, width]`` in any dtype.

        window : those pooled over the latest tokens, of looks. step : by default the one behind the last.
        """
        rows = self._require(requests, phi)
        self._steps[rows] = self._steps[rows] + 1 if step is None else step
        self.looked = self.watching.due(self._steps[rows], rows)
        return self.watching.update(phi.float(), self._steps[rows], rows, None if window is None else window.float())

    def passed(self, requests: Sequence[Hashable], step: int) -> None:
        """These requests have made a step at which the guard does not look, so that its states are not needed."""
        self._steps[[self._row(one) for one in requests]] = step

    def finish(
        self,
        request: Hashable,
        phi: torch.Tensor | None = None,
        window: torch.Tensor | None = None,
        *,
        cut: bool = False,
    ) -> Verdict:
        """The request has ended: its states stay as they are at the looks that are left, as in a recording.

        phi, window : ``[layers, width]``, of a request that was given to `judge`. cut : the answer was cut off and did
        not end by itself. Then, and on looks of whole answers, the next look alone sees it, unless one fell on its last
        step.
        """
        row = np.array([self._row(request)])
        last, looked = int(self._steps[row[0]]), self.cleared(request)
        left = [step for step in self.watching.reading.steps if step > last]
        if cut or self.watching.reading.looks is not None:
            left = [] if looked is None or looked == last else left[:1]
        if left:
            means = self._means(row) if phi is None else (phi[None], None if window is None else window[None])
            self.watching.stay(means[0], int(row[0]), len(left), means[1])
        return self.verdict(request)

    def cleared(self, request: Hashable) -> int | None:
        """The latest step that a look has seen, 0 before the first; None where no look is left to come."""
        looks, steps = int(self.watching.looks[self._row(request)]), self.watching.reading.steps
        return None if looks == len(steps) else steps[looks - 1] if looks else 0

    def verdict(self, request: Hashable) -> Verdict:
        """What is said of an open request so far."""
        row = self._row(request)
        looks = int(self.watching.looks[row])
        score = float(self.watching.scores[row]) if looks else float("nan")
        return Verdict(int(self._steps[row]), looks, score, int(self.watching.stopped_at[row]))

    def close(self, request: Hashable) -> Verdict:
        """The last verdict on a request, which is followed no more."""
        found = self.verdict(request)
        self._free.append(self._rows.pop(request))
        return found

    def _means(self, rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Of these rows the mean of the states of all tokens, ``[rows, layers, width]``, and of the latest of them."""
        place = torch.as_tensor(rows, device=self._sums.device)
        counts = torch.as_tensor(self._counts[rows], device=self._sums.device).clamp(min=1).float()[:, None, None]
        phi = self._sums[place] / counts
        if not self._window:
            return phi, None
        return phi, torch.where(counts > self._window, self._held[place].sum(dim=1) / self._window, phi)

    def _row(self, request: Hashable) -> int:
        if request not in self._rows:
            raise InputError(f"request {request!r} is not followed; open it first.")
        return self._rows[request]

    def _require(self, requests: Sequence[Hashable], states: torch.Tensor) -> NDArray[np.int64]:
        rows = np.array([self._row(one) for one in requests], dtype=np.int64)
        if len(set(requests)) != len(rows):
            raise InputError(f"the requests {list(requests)} name one twice; a step of a request is one row.")
        if states.ndim != 3 or len(states) != len(rows) or states.shape[1] != len(self.layers):
            raise InputError(
                f"states of shape {list(states.shape)} for {len(rows)} requests; expected [{len(rows)}, "
                f"{len(self.layers)}, width], the layers {list(self.layers)} in this order."
            )
        return rows

    def _grow(self) -> None:
        """Make room for as many requests again."""
        count = len(self._steps)
        self.watching.grow(count)
        self._steps, self._counts = (np.concatenate([one, np.zeros_like(one)]) for one in (self._steps, self._counts))
        self._free = list(range(count, 2 * count))[::-1]
        if self._sums.numel():
            self._sums = torch.cat([self._sums, torch.zeros_like(self._sums)])
            self._held = torch.cat([self._held, torch.zeros_like(self._held)])
