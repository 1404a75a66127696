"""What the rows of a check share: the model, the prompts, the sampler, and generations that several rows look at.

In: a model and a plan. Out: prompts as token ids, and traces of them alone and in a batch, made by `record` when first
asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from demur.checks.plan import Plan, response_of
from demur.checks.texts import rows_of
from demur.checks.traces import Tolerance, Trace, traces_of
from demur.errors import InputError
from demur.models import Layer, Model
from demur.recording import Recording, record
from demur.samplers import Sampler
from demur.samplers.block_diffusion.base import BlockSampler

NAMED: tuple[Layer, ...] = ("first", "quarter", "middle", "last")
SHARED, UNSHARED = "shared", "unshared"


def blockwise(model: Model) -> bool:
    """Whether a model's own sampler finishes block after block, each with its share of the steps."""
    return isinstance(model.default_sampler(), BlockSampler)


class Bench:
    """A model with everything that is needed to check it.

    layers : indices of the named layers, or of the last alone where the blocks cannot be told apart.
    """

    def __init__(self, model: Model, plan: Plan) -> None:
        self.model, self.plan = model, plan
        self.tolerance = Tolerance.of(next(model.network.parameters()).dtype)
        self._alone: dict[str, dict[int, Trace]] = {}
        self._batches: dict[str, list[Trace]] = {}

    @cached_property
    def layers(self) -> tuple[int, ...]:
        indices = tuple(dict.fromkeys(self.model.layer_index(layer) for layer in NAMED))
        try:
            with self.model.states(indices):
                return indices
        except InputError:
            return (self.model.layer_index("last"),)

    @cached_property
    def sampler(self) -> Sampler:
        """The model's own sampler, with few steps."""
        steps = self.plan.steps
        given: dict[str, Any] = {"pooling": "paper"}
        if self.model.traits.sized and not blockwise(self.model):
            given["response_length"] = response_of(steps)
            if self.model.sampler_defaults.get("block_length"):
                given["block_length"] = response_of(steps)
        made: Sampler = self.model.default_sampler(steps=steps, **given)
        return made

    @cached_property
    def rows(self) -> dict[str, list[list[int]]]:
        """The prompts, with and without a beginning that all share."""
        return {kind: rows_of(self.model, self.plan.words, shared=kind == SHARED) for kind in (SHARED, UNSHARED)}

    def record(self, rows: Sequence[Sequence[int]], batch_size: int, **options: Any) -> Recording:
        """A recording of rows of token ids; `options` are those of `record`."""
        prompts = [{"id": str(place), "token_ids": list(row)} for place, row in enumerate(rows)]
        given = {"sampler": self.sampler, "layers": self.layers, "progress": False, **options}
        return record(self.model, prompts, batch_size=batch_size, **given)

    def traces(self, rows: Sequence[Sequence[int]], batch_size: int) -> list[Trace]:
        """The generations of rows of token ids."""
        return traces_of(self.record(rows, batch_size))

    def alone(self, kind: str) -> dict[int, Trace]:
        """The generations of the compared rows, each in a batch of its own, by place."""
        if kind not in self._alone:
            places = self.plan.compared
            found = self.traces([self.rows[kind][place] for place in places], 1)
            self._alone[kind] = dict(zip(places, found, strict=True))
        return self._alone[kind]

    def batch(self, kind: str) -> list[Trace]:
        """The generations of all rows in one batch."""
        if kind not in self._batches:
            self._batches[kind] = self.traces(self.rows[kind], len(self.rows[kind]))
        return self._batches[kind]

    @contextmanager
    def ending_at(self, token: int) -> Iterator[None]:
        """While open, a token that the model likes to say ends a response."""
        kept = self.model.eos_token_ids
        self.model.eos_token_ids = [*kept, token]
        try:
            yield
        finally:
            self.model.eos_token_ids = kept
