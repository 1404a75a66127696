"""How the steps of many generations become a text that a page can hold and read a piece of.

In: tokens and signals of every step. Out: `Packed`, one record a generation in base64. A record stores when each
position was committed, the tokens of the first step, and after that only what changed. Without text it stores no
token id either: only whether a token is an end-of-sequence, a blank or any other.

A record, little-endian: uint16 signal ``[steps]``, text-level signal ``[steps]`` (65,534 for 1, 65,535 for none) and
committed_at ``[response]`` (0 for never); where predictions are revised, a bit a position that changed, ``[steps - 1,
response]``, each step in whole bytes; then a code of `width` bytes for each position of the first step and for each
change. It is padded to whole groups of base64, so that a reader can cut it out of the text and decode it alone.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np

from demur.recording import StepTokens

ANY, END, BLANK = 0, 1, 2
"""The codes of a file without text."""
MISSING = 0xFFFF


@dataclass(frozen=True)
class Track:
    """How the response of one generation came about.

    committed_at : uint16 ``[response]``, 0 where a position was never committed.
    changed : bool ``[steps - 1, response]``, whether a prediction differs from that of the step before.
    tokens : int32, the ids of the first step ``[response]``, then that of every change, step by step.
    """

    committed_at: np.ndarray
    changed: np.ndarray
    tokens: np.ndarray

    @property
    def edits(self) -> int:
        """How often a token changed that had been committed at an earlier step."""
        steps = np.arange(2, len(self.changed) + 2)[:, None]
        before = (self.committed_at > 0) & (self.committed_at < steps)
        return int((self.changed & before).sum())


@dataclass(frozen=True)
class Codes:
    """What stands for a token in the records.

    ends, blanks : ids of end-of-sequence tokens, and of those that fill a position to which nothing is committed.
    tokens : sorted ids, whose places are their codes; None for a file without text, whose codes are the three kinds.
    """

    ends: list[int]
    blanks: list[int]
    tokens: np.ndarray | None = None

    @property
    def width(self) -> int:
        """Bytes of a code."""
        largest = BLANK if self.tokens is None else len(self.tokens) - 1
        return max(1, (largest.bit_length() + 7) // 8)

    @property
    def end_codes(self) -> list[int]:
        """Codes that stand for an end-of-sequence."""
        return [END] if self.tokens is None else np.flatnonzero(np.isin(self.tokens, self.ends)).tolist()

    @property
    def blank_codes(self) -> list[int]:
        """Codes that stand for nothing yet."""
        return [BLANK] if self.tokens is None else np.flatnonzero(np.isin(self.tokens, self.blanks)).tolist()

    def of(self, tokens: np.ndarray) -> np.ndarray:
        """The codes of token ids, integers of the same shape."""
        if self.tokens is not None:
            return np.searchsorted(self.tokens, tokens)
        kinds = np.where(np.isin(tokens, self.blanks), BLANK, ANY)
        return np.where(np.isin(tokens, self.ends), END, kinds)


@dataclass(frozen=True)
class Packed:
    """All records in base64, and the character at which each one begins and the last one ends."""

    text: str
    offsets: list[int]


def track_of(tokens: StepTokens) -> Track:
    """The changes of one generation's tokens."""
    predicted, is_committed = tokens
    first = is_committed.argmax(axis=0) + 1
    changed = predicted[1:] != predicted[:-1]
    return Track(
        committed_at=np.where(is_committed.any(axis=0), first, 0).astype("<u2"),
        changed=changed,
        tokens=np.concatenate([predicted[0], predicted[1:][changed]]).astype(np.int32),
    )


def pack(tracks: list[Track], signals: np.ndarray, text_signals: np.ndarray, codes: Codes, *, revises: bool) -> Packed:
    """Records of all generations; signals : float32 ``[generations, steps]``."""
    records = [
        _record(track, np.stack(pair), codes, revises)
        for track, *pair in zip(tracks, signals, text_signals, strict=True)
    ]
    lengths = np.cumsum([0, *(len(record) // 3 * 4 for record in records)])
    return Packed(base64.b64encode(b"".join(records)).decode("ascii"), lengths.tolist())


def _record(track: Track, signals: np.ndarray, codes: Codes, revises: bool) -> bytes:
    shares = np.where(np.isnan(signals), MISSING, np.round(np.nan_to_num(signals) * (MISSING - 1)))
    parts = [shares.astype("<u2").tobytes(), track.committed_at.tobytes()]
    if revises:
        parts.append(np.packbits(track.changed, axis=1, bitorder="little").tobytes())
    wide = codes.of(track.tokens).astype("<u4")
    parts.append(wide.view(np.uint8).reshape(-1, 4)[:, : codes.width].tobytes())
    record = b"".join(parts)
    return record + bytes(-len(record) % 3)
