"""Generation under a streaming guard: any sampler, stopped where the signal leaves what is usual.

In: a model, prompts, a sampler, anchors and a fitted `StreamingGuard`. Out: the text of each prompt up to the step
at which it was stopped. The sampler knows nothing of it; what a user is shown instead is left to the caller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from demur.errors import InputError
from demur.guards import StreamingGuard, Watch
from demur.models import Model
from demur.prompts import as_prompts
from demur.provenance import Provenance, require_comparable
from demur.recording.generate import Encoded, encode, pad_left
from demur.recording.recorder import Prompts, describe
from demur.samplers import Prefill, Sampler, Step
from demur.samplers.step import require_at_least
from demur.signal import Anchors

if TYPE_CHECKING:
    import pandas as pd


def generate_guarded(
    model: Model,
    prompts: Prompts,
    anchors: Anchors,
    guard: StreamingGuard,
    sampler: Sampler | None = None,
    *,
    layer: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> pd.DataFrame:
    """Generate for every prompt, and no further than the guard lets it.

    prompts : a path, or a list of texts, rows or `Prompt`s. sampler : by default the model's own with as many
        steps as the guard was fitted on and `seed`.
    layer : of the anchors, by default the highest. batch_size : prompts generated together; decides only what is
        saved, for a batch goes on until all of its rows are stopped.

    Returns a row a prompt: id, prompt, stopped_at (the step, counted from 1; 0 where it never was), text and tokens
    (how many were committed) until then. The stops are those of `StreamingGuard.stops` on a recording.
    Raises `ProvenanceError` where model, sampler, anchors and guard do not belong together.
    """
    import pandas as pd

    checked = as_prompts(prompts)
    sampler = sampler or model.default_sampler(steps=guard.n_features_in_, seed=seed)
    require_at_least("batch_size", batch_size, 1)
    layer = checked_layer(anchors, guard, layer, describe(model, checked, sampler, anchors.layers))
    if sampler.step_count != guard.n_features_in_:
        raise InputError(
            f"the sampler makes {sampler.step_count} steps and the guard was fitted on {guard.n_features_in_}; "
            "give a sampler with as many."
        )
    ordered = sorted(encode(model, checked, sampler), key=lambda one: (-len(one.ids), one.row))
    found: dict[int, dict[str, Any]] = {}
    for start in range(0, len(ordered), batch_size):
        chosen = ordered[start : start + batch_size]
        found |= zip((one.row for one in chosen), _generate(model, chosen, sampler, anchors, guard, layer), strict=True)
    return pd.DataFrame(
        [{"id": prompt.id, "prompt": prompt.prompt, **found[row]} for row, prompt in enumerate(checked)]
    )


def watched_steps(
    sampler: Sampler,
    model: Model,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    anchors: Anchors,
    guard: StreamingGuard,
    layer: int | None = None,
    prefill: Prefill | None = None,
) -> Iterator[tuple[Step, Watch]]:
    """The steps of a sampler with the watch that has seen them, up to the one at which the last row is stopped.

    A row that is stopped earlier goes on beside the others; `watch.stopped_at` says from when it does not count.
    Nothing is checked here but shapes, see `generate_guarded`.
    """
    layer = max(anchors.layers) if layer is None else layer
    watch = guard.watch(len(input_ids))
    steps = sampler.steps(model, input_ids, attention_mask, layers=(layer,), prefill=prefill)
    # A sampler is a generator: closing it ends its forward passes and removes its hooks.
    with closing(cast(Any, steps)):
        for step in steps:
            sigma_t = anchors.score_step(step.phi[:, 0], step.index, layer)
            stopped = watch.update(sigma_t.cpu().numpy())
            yield step, watch
            if stopped.all():
                return


def checked_layer(anchors: Anchors, guard: StreamingGuard, layer: int | None, made: Provenance | None) -> int:
    """The layer the signal is taken from; `ProvenanceError` unless states, anchors and guard belong together.

    made : what the states will be made from, None where that is not known.
    """
    layer = max(anchors.layers) if layer is None else layer
    require_comparable(anchors.provenance, made, ("the anchors", "this generation"), layers=False)
    made = made or anchors.provenance
    if made is not None:
        require_comparable(guard.provenance_, anchors.describe(made, layer), ("the guard", "the anchors' signal"))
    if guard.n_features_in_ > len(anchors.harmless):
        raise InputError(
            f"the guard was fitted on {guard.n_features_in_} steps and the anchors have {len(anchors.harmless)}; "
            "fit the guard on the signals of these anchors."
        )
    return layer


def _generate(
    model: Model, chosen: Sequence[Encoded], sampler: Sampler, anchors: Anchors, guard: StreamingGuard, layer: int
) -> list[dict[str, Any]]:
    """What became of each prompt of a batch."""
    ids, mask = pad_left([one.ids for one in chosen], model.pad_token_id)
    forced = [one.forced.tolist() for one in chosen]
    prefill = forced if any(forced) else None
    tokens: list[list[int]] = [[] for _ in chosen]
    stopped_at = np.zeros(len(chosen), dtype=np.int64)
    watched = watched_steps(sampler, model, ids, mask, anchors=anchors, guard=guard, layer=layer, prefill=prefill)
    for step, watch in watched:
        for row in np.flatnonzero((stopped_at == 0) & ((watch.stopped_at > 0) | (step.index == sampler.step_count))):
            tokens[row] = step.committed[row][step.is_committed[row]].tolist()
        stopped_at = watch.stopped_at.copy()
    return [
        {
            "stopped_at": int(stop),
            "text": None if model.tokenizer is None else model.decode(committed),
            "tokens": len(committed),
        }
        for stop, committed in zip(stopped_at, tokens, strict=True)
    ]
