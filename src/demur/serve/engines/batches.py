"""Generations on demur's own samplers: a queue, and batches of what can run together.

In: jobs. Out: their tokens and verdicts. A batch is begun when the one before has ended; a row that a guard has
stopped, or for which nobody waits, is worked on no more. Of a canvas, which fills in any order, a token counts once all
before it are committed. This is how diffusion models are served, and any network that continuous batching cannot run.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from demur.models import Model
from demur.recording.generate import pad_left
from demur.samplers import SAMPLERS, Sampler, Step
from demur.serve.engines.engine import EngineDown, Mailbox
from demur.serve.engines.row import Row
from demur.serve.guards import Guards
from demur.serve.job import Job, Reason, Update

_LOG = logging.getLogger("demur.serve")


@dataclass(eq=False)
class _Row(Row):
    """A row of a batch. counts : how many of its tokens had come at each step."""

    counts: list[int] = field(default_factory=lambda: [0])


class Batches:
    """An `Engine` on demur's own samplers.

    sampler : name and arguments of the one that the guards were made for, as `Sampler.describe` gives them. slots :
    rows of a batch. longest : most tokens of prompt and answer.
    """

    adjustable = False

    def __init__(self, model: Model, guards: Guards, sampler: Mapping[str, Any], *, slots: int, longest: int) -> None:
        self.model, self.guards, self.longest = model, guards, longest
        self._given, self._slots = dict(sampler), slots
        self._eos = set(model.eos_token_ids)
        self._waiting: deque[Job] = deque()
        self._rows: dict[str, _Row] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._mailbox = Mailbox(loop)
        self._thread = threading.Thread(target=self._work, name="demur-batches", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        with self._changed:
            if not self.healthy:
                raise EngineDown("the engine has ended; start the server again")
            self._waiting.append(job)
            self._changed.notify()

    def cancel(self, job: Job) -> None:
        with self._changed:
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout=30)

    @property
    def healthy(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._stopping

    @property
    def running(self) -> int:
        return len(self._rows)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def _work(self) -> None:
        while (jobs := self._next_batch()) is not None:
            try:
                self._run(jobs)
            except Exception as error:
                _LOG.exception("a batch of %d generations failed", len(jobs))
                self._give_up(jobs, f"{type(error).__name__}: {error}")
            finally:
                self._rows.clear()
        self._give_up([*self._waiting], "the server is stopping")

    def _give_up(self, jobs: Sequence[Job], fault: str) -> None:
        """Tell whoever still waits that nothing comes any more."""
        for name in [one.id for one in jobs if one.id in self._rows]:
            self.guards.forget(name)
        left = [job for job in jobs if not job.cancelled and not job.done]
        self._mailbox.post([(job, self._ended(job, Update((), 0, "error", fault=fault))) for job in left])

    def _next_batch(self) -> list[Job] | None:
        """The jobs that have waited longest and can run together; None once the server stops."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._waiting)
            if self._stopping:
                return None
            key = self._key(self._waiting[0])
            chosen = [job for job in self._waiting if self._key(job) == key][: self._slots]
            for job in chosen:
                self._waiting.remove(job)
            return chosen

    def _key(self, job: Job) -> tuple[Any, ...]:
        """What the rows of a batch have in common: the arguments of their sampler."""
        return (job.temperature, job.seed if job.temperature > 0 else 0)

    def _sampler(self, jobs: Sequence[Job]) -> Sampler:
        temperature, seed = self._key(jobs[0])
        arguments = {name: value for name, value in self._given.items() if name != "name"}
        arguments |= {"temperature": temperature, "seed": seed}
        if self.model.traits.left_to_right:
            arguments["steps"] = max(job.max_tokens for job in jobs)
        return SAMPLERS.find(str(self._given["name"]))(**arguments)

    def _run(self, jobs: Sequence[Job]) -> None:
        sampler = self._sampler(jobs)
        for job in jobs:
            self.guards.open(job.id)
            self._rows[job.id] = row = _Row(job)
            row.heard(self.guards)
        ids, mask = pad_left([np.asarray(job.ids) for job in jobs], self.model.pad_token_id)
        samples = [job.sample for job in jobs]
        options: dict[str, Any] = {"samples": samples, "layers": self.guards.layers or ("last",)}
        if self.guards.looks is not None:
            options["looks"] = self.guards.looks
        steps = sampler.steps(self.model, ids, mask, **options)
        done = torch.zeros(len(jobs), dtype=torch.bool)
        with closing(steps):
            sent = None
            for _ in range(sampler.step_count + self.guards.has_prompt):
                step = steps.send(sent)
                self._mailbox.post(list(self._advance(jobs, step, done, step.index == sampler.step_count)))
                if done.all() or self._stopping:
                    break
                sent = done.clone()

    def _advance(self, jobs: Sequence[Job], step: Step, done: torch.Tensor, last: bool) -> Iterator[tuple[Job, Update]]:
        """Judge a step, and tell what is new of every row; rows that end are marked in `done`."""
        for place, job in enumerate(jobs):
            if job.cancelled and not done[place]:
                done[place] = True
                self.guards.close(job.id)
                self._rows.pop(job.id, None)
        going = (~done).nonzero().squeeze(1).tolist()
        if going:
            looked = self.guards.judge([jobs[place].id for place in going], step, going)
            for place in np.asarray(going)[looked]:
                self._rows[jobs[place].id].heard(self.guards)
        tokens, counts, ended = self._answers(step, [job.max_tokens for job in jobs])
        for place in going:
            row = self._rows[jobs[place].id]
            update = self._after_prompt(row) if not step.index else None
            if step.index:
                row.tokens = tokens[place][: counts[place]]
                update = self._next(row, ended[place], step, place, last)
            if update is not None:
                done[place] |= update.reason is not None
                yield row.job, update

    def _after_prompt(self, row: _Row) -> Update | None:
        """What there is to tell once guards have seen the prompt alone."""
        row.by_prompt, row.job.prompt_scores = bool(row.stop), self.guards.prompt_scores(row.job.id)
        return self._end(row, "content_filter", row.stop) if row.stop and row.job.block_prompt else None

    def _next(self, row: _Row, ended: bool, step: Step, place: int, last: bool) -> Update | None:
        """What there is to tell of a row after a step; None where nothing is."""
        job, name, before = row.job, row.job.id, row.cleared
        row.counts.append(len(row.tokens))
        if row.stop and job.block:
            return self._end(row, "content_filter", row.stop)
        row.cleared = len(row.tokens) if row.looked is None else row.counts[row.looked]
        whole = self.model.traits.left_to_right and (ended or len(row.tokens) >= job.max_tokens)
        if last or (whole and not (ended and self._look_comes(row, step))):
            self.guards.finish(name, step, place, cut=not ended)
            stop = self.guards.stopped_at(name)
            reason: Reason = "stop" if ended else "length"
            return self._end(row, "content_filter" if stop and job.block else reason, stop)
        if not job.follow or (job.held and row.cleared <= before):
            return None
        return row.told()

    def _look_comes(self, row: _Row, step: Step) -> bool:
        """Whether a look at the whole answer is still to come, for which the sampler keeps the states as they are."""
        return self.guards.looks is not None and row.looked is not None and step.index not in self.guards.looks

    def _answers(self, step: Step, most: Sequence[int]) -> tuple[list[list[int]], list[int], list[bool]]:
        """The tokens of every row; how many stand before the first gap, up to the first end-of-sequence or the most
        that are wanted; and whether the last of them ends the answer."""
        committed, known = step.committed.cpu().numpy(), step.is_committed.cpu().numpy()
        places = np.arange(known.shape[1])
        whole = np.where(known.all(axis=1), known.shape[1], known.argmin(axis=1))
        ends = np.isin(committed, list(self._eos)) & (places < whole[:, None])
        first = np.where(ends.any(axis=1), ends.argmax(axis=1) + 1, whole)
        counts = np.minimum(first, most)
        return committed.tolist(), counts.tolist(), (ends.any(axis=1) & (first == counts)).tolist()

    def _end(self, row: _Row, reason: Reason, stop: int) -> Update:
        verdicts = self.guards.close(row.job.id)
        self._rows.pop(row.job.id, None)
        shown = row.counts[min(stop, len(row.counts) - 1)]
        return self._ended(row.job, row.ended(reason, shown, stop, verdicts))

    @staticmethod
    def _ended(job: Job, update: Update) -> Update:
        job.done = True
        return update
