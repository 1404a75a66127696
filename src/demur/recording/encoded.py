"""Many prompts as token ids, and the batches that they are generated in, held in a few flat arrays.

In: the token ids of each prompt. Out: `EncodedPrompts`, which gives an `Encoded` for each place when it is asked for,
and `Plan`, which gives batches of them. A prompt costs four bytes a token and about 40 more, in place of the hundreds
of bytes that objects of its own would take.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

_DIGEST = 16


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt as token ids: its place in the prompt set, the input and what is forced of the response.

    whole : `forced` is a whole response, each position of which is committed in its turn, not from the start.
    sample : how many prompts of the same ids and forced tokens stand before it in the prompt set.
    """

    row: int
    ids: np.ndarray  # int32 [prompt]
    forced: np.ndarray  # int32 [n], -1 where the model fills in
    whole: bool = False
    sample: int = 0


class _Ragged:
    """Integer lists of differing lengths in one array."""

    def __init__(self, lists: Iterable[Sequence[int] | np.ndarray]) -> None:
        parts, lengths = bytearray(), [0]
        for one in lists:
            parts += np.asarray(one, dtype=np.int32).tobytes()
            lengths.append(len(one))
        self.values = np.frombuffer(bytes(parts), dtype=np.int32)
        self.starts = np.cumsum(lengths, dtype=np.int64)

    def __getitem__(self, place: int) -> np.ndarray:
        return self.values[self.starts[place] : self.starts[place + 1]]

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)


class EncodedPrompts(Sequence[Encoded]):
    """The prompts of one set as token ids; a sequence of `Encoded`, each of which is made when it is read.

    ids, forced : token ids of every prompt, see `Encoded`. whole : whether the forced tokens are whole responses.
    """

    def __init__(self, pairs: Iterable[tuple[Sequence[int], Sequence[int]]], *, whole: bool = False) -> None:
        forced: list[Sequence[int]] = []

        def inputs() -> Iterable[Sequence[int]]:
            for ids, one in pairs:
                forced.append(one or ())  # the empty tuple is one object for all
                yield ids

        self._ids = _Ragged(inputs())
        self._forced = _Ragged(forced)
        self._whole = whole
        self._places = self._rows = np.arange(len(forced))
        self._samples = _occurrences([self._ids, self._forced], len(forced))

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[one] for one in range(len(self))[index]]
        row, place = int(self._rows[index]), int(self._places[index])
        return Encoded(row, self._ids[place], self._forced[place], self._whole, int(self._samples[place]))

    @property
    def rows(self) -> np.ndarray:
        """The row of each prompt, int64 ``[n]``."""
        return self._rows

    @property
    def lengths(self) -> np.ndarray:
        """How many tokens each prompt has, int64 ``[n]``."""
        return self._ids.lengths[self._places]

    def chosen(self, places: np.ndarray, *, anew: bool = False) -> EncodedPrompts:
        """Those at `places`, sharing all arrays. anew : with rows counted from 0; else each keeps its row."""
        found = object.__new__(EncodedPrompts)
        found.__dict__ |= self.__dict__
        found._places = self._places[places]
        found._rows = np.arange(len(places)) if anew else self._rows[places]
        return found


class Plan(Sequence[list[Encoded]]):
    """The prompts that are generated together: longest first, those of one length in their order.

    A sequence of batches, each of which is made when it is read. order : places of all prompts, int64.
    """

    def __init__(self, encoded: Sequence[Encoded], batch_size: int) -> None:
        if isinstance(encoded, EncodedPrompts):
            rows, lengths = encoded.rows, encoded.lengths
        else:
            rows, lengths = np.array([one.row for one in encoded]), np.array([len(one.ids) for one in encoded])
        self.order = np.lexsort((rows, -lengths))
        self._encoded, self._rows, self._batch_size = encoded, rows, batch_size

    def __len__(self) -> int:
        return -(-len(self.order) // self._batch_size)

    @overload
    def __getitem__(self, index: int) -> list[Encoded]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[Encoded]]: ...
    def __getitem__(self, index: int | slice) -> list[Encoded] | list[list[Encoded]]:
        if isinstance(index, slice):
            return [self[one] for one in range(len(self))[index]]
        return [self._encoded[place] for place in self._places_of(range(len(self))[index]).tolist()]

    def rows_of(self, batches: Sequence[int]) -> np.ndarray:
        """The rows of some batches by their numbers, int64 in ascending order."""
        return np.sort(self._rows[np.concatenate([self._places_of(one) for one in batches])])

    def _places_of(self, batch: int) -> np.ndarray:
        return self.order[batch * self._batch_size : (batch + 1) * self._batch_size]


def _occurrences(parts: Sequence[_Ragged], count: int) -> np.ndarray:
    """How many equal prompts stand before each one, int32 ``[count]``, told by a hash of 128 bits."""
    digests = np.zeros((count, _DIGEST), dtype=np.uint8)
    for place in range(count):
        digest = hashlib.blake2b(digest_size=_DIGEST)
        for part in parts:
            content = part[place].tobytes()
            digest.update(len(content).to_bytes(8, "little") + content)
        digests[place] = np.frombuffer(digest.digest(), dtype=np.uint8)
    order = np.lexsort(digests.view("<u8").T)  # stable: equal ones stay in their order
    ordered = digests.view("<u8")[order]
    begins = np.ones(count, dtype=bool)
    begins[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    starts = np.flatnonzero(begins)
    samples = np.zeros(count, dtype=np.int32)
    samples[order] = np.arange(count) - np.repeat(starts, np.diff([*starts, count]))
    return samples
