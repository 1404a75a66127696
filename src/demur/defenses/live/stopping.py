"""A stopping criterion for transformers' own `generate`: ends rows that a streaming guard flags.

In: an autoregressive network, anchors or a direction, and a fitted `StreamingGuard`. Out: which rows to stop, after
every token. The states are those that generation computes anyway; no pass is added.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import StoppingCriteria

from demur.defenses.live.tap import Tap
from demur.defenses.live.watching import Reading, Source
from demur.errors import InputError, ProvenanceError
from demur.guards import StreamingGuard, drift_of
from demur.models import Model, from_network
from demur.models.capture import ThreadPasses
from demur.models.end_tokens import token_ids
from demur.signal import Anchors


class GuardStopping(StoppingCriteria):  # type: ignore[misc]
    """Stops the rows of one call of `generate` that a streaming guard flags::

        with GuardStopping(network, source, guard) as stopping:
            output = network.generate(**inputs, max_new_tokens=32, stopping_criteria=[stopping])
        stopping.stopped_at

    network : a `Model`, or any causal network of transformers; of a bare one it is not checked whether source and
        guard were made from it.
    source : the anchors whose signal the guard was fitted on, or the `LinearGuard` whose `place_errors`.
    layer : of anchors, by default the highest.
    stopped_at : int64 `[batch]`, the step that ended a row, 0 where none did; 1 too where the prompt's own state did,
        which a guard on looks judges: such a row ends with its first token.

    phi is the mean of the states of the tokens so far, as in `Autoregressive`, so the stops are those of
    `StreamingGuard.stops` on a recording (along a direction as `LinearGuard.steps_of` counts them). The state of a
    token exists once the token is fed back: what step t says is known when token t + 1 is chosen, and a row stopped at
    t ends with t + 1 tokens, padding behind them. So the last token of a row is never judged, nor is a row any more
    once it has reached end-of-sequence, nor a step beyond those that the guard was fitted on. The bound on stopped
    harmless generations holds all the same.

    The highest scores of the rows are compared with those of the calibration, and one `DriftWarning` says where they
    have become higher; see `demur.guards.DriftWatch`.

    Works with and without a KV cache and with left padding, in several threads at a time: each call of `generate` is
    judged by its own passes. Raises `InputError` outside of its `with` block, in a second call of `generate` (of this
    thread or another, which needs a GuardStopping of its own), under
    beam search, assisted and guided decoding, for a compiled network that shows no states, and at the end of a block
    in which the network ran and nothing was judged; `ProvenanceError` for parts that do not
    belong together.
    """

    def __init__(self, network: Any, source: Source, guard: StreamingGuard, layer: int | None = None) -> None:
        known = isinstance(network, Model)
        # Hashing all weights takes long and tells nothing about a network that anchors are not known to be from.
        self._model = network if known else from_network(network, content="unknown")
        self._reading = _checked(source, guard, layer, self._model if known else None)
        self._guard = guard
        # What ends a row of `generate`; a token that only demur takes for an end would leave the rest unguarded.
        ends = token_ids(getattr(self._model.network.generation_config, "eos_token_id", None))
        self._eos = torch.tensor(ends, dtype=torch.int64)
        self._hooks = ExitStack()
        self._passes: ThreadPasses | None = None
        self._states: list[torch.Tensor] = []
        self._asked = False
        self._tap: Tap | None = None

    def __enter__(self) -> Self:
        if self._passes is not None:
            raise InputError("this GuardStopping is open already; make one for each call of generate.")
        self._passes = self._hooks.enter_context(self._model.thread_passes(self._reading.layers))
        self._states, self._asked, self._tap = [], False, None
        self.stopped_at: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._hooks.close()
        passes, self._passes = self._passes, None
        if kind is None and self._tap is not None and (drift := drift_of(self._guard, "less")) is not None:
            drift.add(self._tap.watching.highest[self._tap.watching.looks > 0])
        if kind is None and passes is not None and passes.any and not self._asked:
            raise InputError(
                "the network ran in this block and GuardStopping was never asked, so nothing was guarded; give "
                "stopping_criteria=[stopping] to generate, in a mode that heeds it."
            )

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """True for every row to stop, bool `[batch]`; `generate` calls it after each token."""
        self._asked = True
        self._states, positions = self._passes.take() if self._passes else ([], [])
        self._require_one_token_a_row(input_ids, positions)
        if self._tap is None:
            self._begin(input_ids)
        else:
            self._judge(self._tap)
        self._length = input_ids.shape[1]
        self._going &= ~torch.isin(input_ids[:, -1], self._eos.to(input_ids.device))
        return torch.as_tensor(self.stopped_at > 0, device=input_ids.device)

    def _begin(self, input_ids: torch.Tensor) -> None:
        """The first token is chosen; the states at hand are the prompt's."""
        batch = len(input_ids)
        self._tap, self._thread = Tap(self._reading, self._guard, batch), threading.get_ident()
        for row in range(batch):
            self._tap.open(row)
        self._step = 0
        self.stopped_at = np.zeros(batch, dtype=np.int64)
        self._going = torch.ones(batch, dtype=torch.bool, device=input_ids.device)  # no end-of-sequence so far
        if self._tap.has_prompt:
            states = torch.stack([state[:, -1].float().to(self._states[0].device) for state in self._states], dim=1)
            self.stopped_at[self._tap.prompt(range(batch), states)] = 1

    def _judge(self, tap: Tap) -> None:
        """One more token was fed: the tap takes its state. A finished row is fed padding, of which nothing counts."""
        self._step += 1
        rows = np.flatnonzero(self._going.cpu().numpy())
        if self._step > tap.last_step or not len(rows):
            return
        place = self._states[0].device
        at = torch.as_tensor(rows, device=place)
        newest = torch.stack([state[:, -1].to(place)[at] for state in self._states], dim=1)
        stopped = rows[tap.take(rows.tolist(), newest)]
        self.stopped_at[stopped[self.stopped_at[stopped] == 0]] = self._step

    def _require_one_token_a_row(self, input_ids: torch.Tensor, positions: list[int]) -> None:
        if self._tap is not None and self._thread != threading.get_ident():
            raise InputError(
                "this GuardStopping follows a call of generate in another thread; make one for each call of generate."
            )
        if not self._states or not self._states[0].numel():
            raise InputError("GuardStopping sees no states; call the network's generate inside its `with` block.")
        if len(self._states[0]) != len(input_ids):
            raise InputError(
                f"{len(self._states[0])} rows of states for {len(input_ids)} of tokens: GuardStopping cannot follow "
                "beam search; decode greedily or sample."
            )
        if self._tap is not None and input_ids.shape[1] != self._length + 1:
            raise InputError(
                f"{input_ids.shape[1]} tokens a row after {self._length}; expected one more at a time. Open a `with` "
                "block for each call of generate, and do not use assisted decoding."
            )
        # The newest token alone, or without a cache the whole text; the prompt may come in several passes.
        if self._tap is not None and positions not in ([1], [input_ids.shape[1] - 1]):
            raise InputError(
                f"the network ran {len(positions)} passes over {positions} positions for one token; expected one over "
                "the newest: GuardStopping cannot follow assisted or guided decoding, nor other calls in between."
            )


def _checked(source: Source, guard: StreamingGuard, layer: int | None, model: Model | None) -> Reading:
    """What is watched, once source, guard and model are known to belong together."""
    made = source.provenance if isinstance(source, Anchors) else source.provenance_
    if made is not None and (made.sampler.get("name"), made.sampler.get("pooling")) != ("Autoregressive", "paper"):
        what = "the anchors" if isinstance(source, Anchors) else "the direction guard"
        raise ProvenanceError(
            f"{what} and GuardStopping do not belong together: sampler {made.sampler.get('name')} with pooling "
            f"{made.sampler.get('pooling')} against Autoregressive with pooling paper. Record the prompts so."
        )
    if made is not None and model is not None:
        made = replace(
            made, model=model.name, fingerprint=model.fingerprint, former=model.former_fingerprint, anchors=""
        )
    return Reading.of(source, guard, layer, made)
