"""What a worker of a cluster does: load the model, prove that it is the driver's, and compute batches.

In: how to load the model and what it must be; then one batch of the plan after another. Out: finished batches, sent or
put into a store, or the error that the driver raises in its place. Nothing here knows of Ray.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from demur.engines.ray.store import Store
from demur.errors import InputError
from demur.looks import Looks
from demur.models import Model, load
from demur.recording.encoded import Encoded
from demur.recording.generate import Batch, batches
from demur.samplers import Sampler

PACKAGES = ("demur", "torch", "transformers")


@dataclass(frozen=True)
class Task:
    """One batch of a plan, and what to make of it.

    ids : of the prompts, by row, for messages. store, name : where the batch goes, and as what; by default it is sent.
    """

    chosen: Sequence[Encoded]
    sampler: Sampler
    layers: Sequence[int]
    looks: Looks | None
    ids: Mapping[int, str]
    store: Store | None = None
    name: str = ""


@dataclass(frozen=True)
class Expected:
    """What a worker must have loaded: the driver's model by its fingerprint, under the driver's versions."""

    fingerprint: str
    versions: Mapping[str, str]
    eos_token_ids: Sequence[int]
    threads: int


def expected_of(model: Model, threads: int) -> Expected:
    """What the workers of a driver with this model must have."""
    return Expected(model.fingerprint, versions_here(), list(model.eos_token_ids), threads)


def versions_here() -> dict[str, str]:
    """The packages that decide what comes out."""
    return {name: version(name) for name in PACKAGES}


class Worker:
    """Computes batches with a model of its own.

    loading : arguments of `demur.load`. expected : what must come of them. Every call answers with a batch or with an
    `InputError`, so that a fault in the input ends the job with its one line and not the worker.
    """

    def __init__(self, loading: Mapping[str, Any], expected: Expected) -> None:
        self._model: Model | None = None
        self._fault: InputError | None = None
        try:
            self._model = _proven(loading, expected)
        except InputError as error:
            self._fault = error

    def ready(self) -> InputError | None:
        """None once the model is loaded and proven, else why it is not."""
        return self._fault

    def compute(self, task: Task) -> Batch | str | InputError:
        """The batch of a task, or the name of this machine once the batch is in the store."""
        if self._model is None:
            return self._fault or InputError("the worker has no model")
        try:
            (batch,) = batches(
                self._model, task.chosen, task.sampler, task.layers, len(task.chosen), task.ids, task.looks
            )
        except InputError as error:
            return error
        if task.store is None:
            return batch
        try:
            task.store.put(task.name, batch)
        except InputError as error:
            return InputError(f"{_here()}: {error}")
        return platform.node()


def _proven(loading: Mapping[str, Any], expected: Expected) -> Model:
    """The model, once it is known to be the driver's."""
    import torch

    here = _here()
    found, wanted = versions_here(), expected.versions
    differing = [f"{name} {one} against {wanted.get(name)}" for name, one in found.items() if wanted.get(name) != one]
    if differing:
        raise InputError(f"{here} has other versions than the driver ({', '.join(differing)}); install the same there")
    torch.set_num_threads(expected.threads)
    try:
        model = load(**loading)
    except InputError as error:
        raise InputError(f"{here}: {error}") from error
    model.eos_token_ids = list(expected.eos_token_ids)
    if model.fingerprint != expected.fingerprint:
        raise InputError(
            f"{here} loaded another {loading['name_or_path']} ({model.fingerprint[:12]}) than the driver "
            f"({expected.fingerprint[:12]}); give both the same files, and save a network that was edited"
        )
    return model


def _here() -> str:
    return f"the worker on {platform.node()}"
