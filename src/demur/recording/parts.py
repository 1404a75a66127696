"""Parts of one run, recorded by as many processes that know nothing of each other.

In: the plan of a whole run and which part of it is wanted. Out: the rows of that part, every n-th batch of the plan,
and a manifest that says what run it is a part of. Each part is a recording of its own prompts; `merge` joins them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from demur.errors import InputError
from demur.provenance import Provenance
from demur.recording.encoded import Encoded, Plan

RUN_ROWS = "run_rows"
"""The array of a part's shard that holds the places of its rows in the whole run, int64 ``[n]``."""


def checked_part(part: Any) -> tuple[int, int]:
    """The part ``(i, n)`` as integers with 1 <= i <= n; `InputError` for anything else."""
    is_pair = isinstance(part, tuple | list) and len(part) == 2 and all(type(one) is int for one in part)
    if not is_pair or not 1 <= part[0] <= part[1]:
        raise InputError(f"part is {part!r}; expected two whole numbers i and n with 1 <= i <= n, such as 3 of 16")
    return part[0], part[1]


def rows_of_part(encoded: Sequence[Encoded], batch_size: int, part: tuple[int, int]) -> np.ndarray:
    """The rows of a part, int64 in ascending order: every n-th batch of the plan, so that parts take equally long."""
    index, of = checked_part(part)
    plan = Plan(encoded, batch_size)
    if of > len(plan):
        raise InputError(
            f"part {index}/{of}: the {len(encoded)} prompts make {len(plan)} batches of {batch_size}; give at most "
            f"{len(plan)} parts, or a smaller batch size"
        )
    return plan.rows_of(range(index - 1, len(plan), of))


def part_manifest(
    whole: Mapping[str, Any], part: tuple[int, int], batch_size: int, own: Provenance, inputs: str
) -> dict[str, Any]:
    """The manifest of a part.

    whole : the manifest of the run. own, inputs : provenance and token ids of the part's prompts alone.
    """
    index, of = checked_part(part)
    run = {"provenance": whole["provenance"], "key": whole["key"], "inputs": whole["inputs"], "batch_size": batch_size}
    share = {"index": index, "of": of, "plan": _plan_hash(whole, batch_size, of), "run": run}
    return {**whole, "provenance": own.to_dict(), "key": own.key(), "inputs": inputs, "part": share}


def run_manifest(part: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of the run that a part is of, not complete yet."""
    run = part["part"]["run"]
    kept = {name: value for name, value in part.items() if name not in ("part", "format", "tokenizer")}
    return {**kept, **{name: run[name] for name in ("provenance", "key", "inputs")}, "complete": False}


def _plan_hash(whole: Mapping[str, Any], batch_size: int, of: int) -> str:
    """A sha256 over all that tells which rows a part holds and what is recorded of them."""
    names = ("key", "inputs", "keep", "signal", "looks", "revises", "eos_token_ids", "mask_token_id", "opening")
    content = {**{name: whole.get(name) for name in names}, "batch_size": batch_size, "of": of}
    content["versions"] = whole["provenance"]["versions"]
    if isinstance(whole.get("signal"), Mapping):  # names and versions of the anchors' recording tell nothing here
        content["signal"] = Provenance.from_dict(whole["signal"]).key()
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
