"""`Signal`: sigma, or the features behind it, as an array that remembers what it was made from.

In: an array and a provenance. Out: a NumPy array of float32 that keeps its provenance while it is still that signal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.notebook import facts, plot, sampler_words
from demur.provenance import Provenance, require_comparable


class Signal(np.ndarray[Any, np.dtype[np.float32]]):
    """Sigma, float32 `[prompts, steps]`, or the features behind it, that knows what it was made from.

    provenance : kept by copies, by rows that are chosen and by the first steps of them. Dropped by whatever makes
        another signal of it: choosing or turning round steps, arithmetic, another dtype. Signals that are joined row by
        row (`np.concatenate`) keep it, and are refused where they do not belong together. An edit in place drops it
        from all that share the memory. None where nothing is known.
    lengths : of answers of different length, how many of its values each row has, int64 `[prompts]`; those behind stand
        for nothing. Kept by copies and by rows that are chosen. None where every row has all.
    """

    lengths: NDArray[np.int64] | None
    _made: list[Provenance | None]  # one list for all signals that share memory

    def __new__(
        cls, values: ArrayLike, provenance: Provenance | None = None, lengths: ArrayLike | None = None
    ) -> Signal:
        signal = np.asarray(values, dtype=np.float32).view(cls)
        signal._made = [provenance]
        signal.lengths = None if lengths is None else np.asarray(lengths, dtype=np.int64)
        return signal

    @property
    def provenance(self) -> Provenance | None:
        """What it was made from, see the class."""
        return self._made[0]

    @provenance.setter
    def provenance(self, made: Provenance | None) -> None:
        self._made = [made]

    def _repr_html_(self) -> str:
        made = self.provenance
        known = (
            {"model": made.model, "sampler": sampler_words(made.sampler), "layers": list(made.layers)} if made else {}
        )
        return facts(f"Signal of shape {list(self.shape)}", known, plot(np.asarray(self)))

    def __array_finalize__(self, source: NDArray[Any] | None) -> None:
        self._made = [None]
        self.lengths = source.lengths if isinstance(source, Signal) and self.shape[:2] == source.shape[:2] else None
        if not isinstance(source, Signal) or self.dtype != source.dtype or self.shape[1:] != source.shape[1:]:
            return
        if not np.may_share_memory(self, source):
            self._made = [source.provenance]
        elif self.strides[1:] == source.strides[1:]:  # else a view that turns steps round, or transposes
            self._made = source._made

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if isinstance(found, Signal):
            kept = self._made if np.may_share_memory(found, self) else [self.provenance]
            found._made = kept if _begins_alike(index) else [None]
            found.lengths = self._lengths_of(index, found.shape)
        return found

    def _lengths_of(self, index: Any, shape: tuple[int, ...]) -> NDArray[np.int64] | None:
        """The lengths of chosen rows, of which all values or the first ones are kept."""
        if self.lengths is None or len(shape) < 2 or not _begins_alike(index):
            return None
        lengths = self.lengths[index[0] if isinstance(index, tuple) else index]
        return np.minimum(lengths, shape[1]) if lengths.shape == shape[:1] else None

    def __setitem__(self, index: Any, value: Any) -> None:
        self._forget()
        super().__setitem__(index, value)

    def transpose(self, *axes: Any) -> Any:
        """As NumPy's; the result is no signal of a recording."""
        return _plain(self).transpose(*axes).view(Signal)

    @property
    def T(self) -> Any:
        """As NumPy's; the result is no signal of a recording."""
        return self.transpose()

    def sort(self, *arguments: Any, **options: Any) -> None:
        """As NumPy's; the result is no signal of a recording."""
        self._forget()
        super().sort(*arguments, **options)

    def fill(self, value: Any) -> None:
        """As NumPy's; the result is no signal of a recording."""
        self._forget()
        super().fill(value)

    def __array_function__(self, func: Any, types: Any, arguments: Any, options: Any) -> Any:
        if func.__name__ in _WRITES and isinstance(arguments[0], Signal):
            arguments[0]._forget()
        if func is np.concatenate and (arguments[1:] or (options.get("axis", 0),))[0] == 0 and "out" not in options:
            return joined(arguments[0], super().__array_function__(func, types, arguments, options))
        found = super().__array_function__(func, types, arguments, options)
        if isinstance(found, Signal) and func is not np.copy:
            found._made, found.lengths = [None], None
        return found

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [_plain(value) for value in inputs]
        written = [*options.get("out", ()), *(inputs[:1] if method == "at" else ())]
        for one in written:
            if isinstance(one, Signal):
                one._forget()
        if "out" in options:
            options["out"] = tuple(_plain(value) for value in options["out"])
        return getattr(ufunc, method)(*plain, **options)

    def _forget(self) -> None:
        """Let this signal, and all that share its memory, forget what they were made from."""
        self._made[0] = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Signal, (np.asarray(self), self.provenance, self.lengths)


def joined(parts: Sequence[Any], values: NDArray[Any]) -> NDArray[Any]:
    """`values`, the rows of `parts` under one another, with what all parts were made from.

    Raises `ProvenanceError` for signals that do not belong together; knows nothing where a part knows nothing.
    """
    signals = [part for part in parts if isinstance(part, Signal)]
    made = [one.provenance for one in signals]
    for other in made:
        require_comparable(made[0], other, ("a signal", "another that it is joined to"))
    known = [one for one in made if one is not None]
    if len(known) < len(parts) or values.dtype != np.float32:
        return np.asarray(values)
    lengths = [one.lengths for one in signals if one.lengths is not None]
    return Signal(values, _one_of(known), np.concatenate(lengths) if len(lengths) == len(parts) else None)


def _one_of(made: Sequence[Provenance]) -> Provenance:
    """The provenance of joined signals: that of each, of all their prompts together."""
    first = made[0]
    if all(one == first for one in made):
        return first
    prompts = hashlib.sha256("".join(one.prompts for one in made).encode()).hexdigest()
    return replace(first, prompts=prompts, count=sum(one.count for one in made))


_WRITES = ("copyto", "place", "put", "putmask", "fill_diagonal", "put_along_axis")
"""NumPy's functions that write into their first argument."""


def _begins_alike(index: Any) -> bool:
    """Whether an index chooses rows and, of each, all steps or the first ones in their order."""
    if not isinstance(index, tuple):
        return index is not None
    whole = (slice(None), slice(None, None, 1))
    first_steps = len(index) < 2 or (
        isinstance(index[1], slice) and index[1].start in (None, 0) and index[1].step in (None, 1)
    )
    return None not in index[:1] and first_steps and all(isinstance(one, slice) and one in whole for one in index[2:])


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, Signal) else value
