"""States at the looks of whole answers: what a shard keeps of them, and what is read back.

In: a batch with states at its looks. Out: arrays for a shard, in single or half precision, and from such arrays the
states with both means beside each other. Which steps are looks is said by `demur.looks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from demur.errors import InputError
from demur.looks import Looks
from demur.recording.folder import Arrays
from demur.recording.generate import Batch

Precision = Literal["float32", "float16"]
LARGEST = float(np.finfo(np.float16).max)


def require_precision(keep: str, precision: str) -> None:
    """Refuse a precision that is none, and half precision for anything but looks."""
    if precision not in get_args(Precision):
        raise InputError(f"precision is {precision!r}; expected 'float32' or 'float16'")
    if precision != "float32" and keep != "looks":
        raise InputError(f"precision={precision!r} is for keep='looks'; keep={keep!r} is in float32")


def described(looks: Looks, precision: str) -> dict[str, Any]:
    """What a manifest says of looks."""
    return {"steps": list(looks.steps), "window": looks.window, "precision": precision}


def look_arrays(batch: Batch, kept: Mapping[str, Any]) -> Arrays:
    """What a shard keeps of the states of a batch, ``[batch, looks, layers, width]`` each.

    Half precision rounds every number by at most one part in 2,048, or by 3e-8 where it is below 6e-5. Raises
    `InputError` for states that are too large for it.
    """
    arrays = {"states": batch.phi}
    if kept["window"] is not None:
        assert batch.window is not None  # samplers that take looks give windows
        arrays["window"] = batch.window
    if kept["precision"] == "float32":
        return arrays
    largest = max(float(np.abs(values).max()) for values in arrays.values())
    if largest > LARGEST:
        raise InputError(f"states reach {largest:.3g}, more than float16 holds; record with precision='float32'")
    return {name: values.astype(np.float16) for name, values in arrays.items()}


def both_means(arrays: Arrays) -> np.ndarray:
    """The states of a shard, float32 ``[n, looks, means, layers, width]``: of all tokens, then the latest."""
    means = [arrays[name].astype(np.float32, copy=False) for name in ("states", "window") if name in arrays]
    return np.stack(means, axis=2)


def looks_made(arrays: Arrays, looks: Looks, *, revises: bool) -> np.ndarray:
    """How many looks each answer of a shard has, int64 ``[n]``: none after the first at or behind its last token.

    A sampler that revises goes on to its last step, and so do the looks.
    """
    if revises:
        return np.full(len(arrays["rows"]), len(looks), dtype=np.int64)
    return looks.made(arrays["committed_at"].max(axis=1))
