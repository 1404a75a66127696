"""`demur record --engine ray`: workers of a Ray cluster generate, and the recording is demur's own.

In: the batches of a plan. Out: the same batches, in the order in which they are done. The driver plans, locks and
writes; workers compute, and send their batches or put them into a store. They are kept from one recording to the next,
so that a study loads its model once.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from demur.engines.ray.cluster import Cluster
from demur.engines.ray.store import Names, Store
from demur.engines.ray.worker import Task, Worker, expected_of
from demur.errors import InputError
from demur.looks import Looks
from demur.models import Model
from demur.recording.encoded import Encoded, Plan
from demur.recording.generate import Batch
from demur.samplers import Sampler

AHEAD = 2
"""Batches that wait at each worker, so that none is idle while the driver writes."""
TRIES = 4
"""How often one batch may be begun: what ends so many workers is a fault of the batch."""


class RayEngine:
    """Generates on the workers of a Ray cluster; give it to `record`, `study` or `run_paper` as ``engine=``.

    address : of a running cluster, such as "auto" or "ray://head:10001"; by default a local one is started, and stopped
    by `close` or at the end of a ``with`` block. actors : workers, by default one a GPU of the cluster, or else 2.
    gpus : of each worker, by default 1 where the cluster has any; a share such as 0.5 puts two on one. threads : of
    each worker, by default as many as here, which makes rows bitwise those of one process. timeout : seconds after
    which a worker that has not finished a batch is ended and started anew; the time that the workers took to start is
    added, as one that died may be loading the model again. store : a folder, or a URL of fsspec, that all machines
    share: workers put finished batches there, where they outlive workers and driver, and the driver removes each once
    its rows are recorded; by default batches are sent through Ray.

    A worker that dies is started anew and its batches are computed again. Raises `InputError` where Ray is not
    installed or not reached, for a worker with another model or other versions than the driver, and for a store
    that cannot be read or written.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        actors: int | None = None,
        gpus: float | None = None,
        threads: int | None = None,
        timeout: float | None = None,
        store: str | None = None,
    ) -> None:
        _require_positive(actors=actors, threads=threads, timeout=timeout)
        if gpus is not None and gpus < 0:
            raise InputError(f"gpus is {gpus}; expected 0 or more of each worker")
        self.timeout = timeout
        self.store = None if store is None else Store(store)
        self._cluster = Cluster(address, actors, gpus, threads)
        self._actors: list[Any] = []
        self._of: tuple[str, ...] = ()

    @property
    def versions(self) -> Mapping[str, str]:
        """Nothing: what generates is demur itself, whose versions every worker shares."""
        return {}

    def require(self, model: Model, sampler: Sampler) -> None:
        """Refuse a model that workers cannot load."""
        if model.loading is None:
            raise InputError(
                f"{model.name}: is a network in memory, which workers cannot load; save it and load the checkpoint"
            )

    def batches(
        self,
        model: Model,
        encoded: Sequence[Encoded],
        sampler: Sampler,
        layers: Sequence[int],
        batch_size: int,
        ids: Sequence[str],
        looks: Looks | None = None,
    ) -> Iterator[Batch]:
        """Batches in the order in which they are done; see `demur.recording.generate.batches`."""
        self.require(model, sampler)
        plan = Plan(encoded, batch_size)
        names = None if self.store is None else Names(model, sampler, layers, looks)

        def task_of(chosen: Sequence[Encoded]) -> Task:
            name = "" if names is None else names.of(chosen)
            return Task(
                chosen, sampler, list(layers), looks, {row.row: ids[row.row] for row in chosen}, self.store, name
            )

        found: set[int] = set()
        if self.store is not None and (there := self.store.names()):
            for number, task in enumerate(map(task_of, plan)):
                if task.name in there and (batch := self.store.get(task.name)) is not None:
                    yield batch
                    self.store.remove(task.name)
                    found.add(number)
        if len(found) < len(plan):
            left = (task_of(chosen) for number, chosen in enumerate(plan) if number not in found)
            yield from self._computed(self._workers(model), left)

    def close(self) -> None:
        """End the workers, and the cluster where it was started here."""
        self._cluster.end(self._actors)
        self._actors, self._of = [], ()
        self._cluster.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _workers(self, model: Model) -> list[Any]:
        """Workers that have proven that their model is this one."""
        expected = expected_of(model, self._cluster.threads)
        of = (expected.fingerprint, *map(str, expected.eos_token_ids))
        if self._of != of:
            self._cluster.end(self._actors)
            self._actors, self._of = [], ()
            self._actors = self._cluster.begin(Worker, (dict(model.loading or {}), expected), TRIES - 1)
            self._of = of
        return self._actors

    def _computed(self, actors: Sequence[Any], tasks: Iterator[Task]) -> Iterator[Batch]:
        going: dict[Any, tuple[int, Task]] = {}
        again: deque[Task] = deque()
        begun: Counter[str] = Counter()
        free = deque(place for _ in range(AHEAD) for place in range(len(actors)))
        heard = [time.monotonic()] * len(actors)
        try:
            while True:
                while free and (task := again.popleft() if again else next(tasks, None)) is not None:
                    place = free.popleft()
                    going[actors[place].compute.remote(task)] = place, task
                if not going:
                    return
                done = self._cluster.first_done(list(going), self.timeout)
                self._restart_silent(actors, heard, {place for place, _ in going.values()})
                if done is None:
                    continue
                place, task = going.pop(done)
                batch = self._cluster.result(done, f"the batch of prompt {next(iter(task.ids.values()))!r}")
                if isinstance(batch, InputError):
                    raise batch
                heard[place] = time.monotonic()
                free.append(place)
                if task.store is None:
                    yield batch
                elif (stored := task.store.get(task.name)) is not None:
                    yield stored
                    task.store.remove(task.name)  # its rows are on the disk by now
                else:
                    begun[task.name] += 1
                    _require_shared(task, batch, begun[task.name])
                    again.append(task)
        finally:
            self._cluster.cancel(list(going))

    def _restart_silent(self, actors: Sequence[Any], heard: list[float], busy: set[int]) -> None:
        """Start workers anew that have work and have not been heard of for too long."""
        if self.timeout is None:
            return
        limit = self.timeout + self._cluster.start_seconds  # one that died may be starting anew
        for place, since in enumerate(heard):
            if place in busy and time.monotonic() - since > limit:
                self._cluster.restart(actors[place])
                heard[place] = time.monotonic()


def _require_shared(task: Task, machine: str, times: int) -> None:
    if times == TRIES and task.store is not None:
        raise InputError(
            f"{task.store.url}/{task.name}: is missing or damaged after {TRIES} tries, the last by the worker on "
            f"{machine}; give a store that the driver and all workers share"
        )


def _require_positive(**values: float | None) -> None:
    for name, value in values.items():
        if value is not None and value <= 0:
            raise InputError(f"{name} is {value}; expected more than 0")
