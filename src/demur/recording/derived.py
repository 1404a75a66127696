"""One pass over a recording: all that is computed from its shards, each of which is read once.

In: a recording and `Deriver`s, each of which turns a shard into one value a prompt. Out: the values of the whole
recording, by the derivers' names. What depends on plain settings is kept beside the shards, in `derived/`, with a key
of those settings and of the recording's content, so that a later command reads that and not the shards. What is
derived, and what from, is left to the callers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import demur
from demur.errors import InputError
from demur.files.arrays import read_arrays, write_arrays
from demur.files.staging import is_own_folder
from demur.files.tables import read_table, write_table
from demur.files.writing import disk_errors, make_folder
from demur.recording.folder import Arrays
from demur.recording.recording import Recording, StepText, StepTokens

if TYPE_CHECKING:
    import pandas as pd

FOLDER = "derived"
FORMAT = 1
"""Raised when a deriver of the same name and settings gives other values than before."""
_KIND = "derived"
Value = Any
"""An array ``[prompts, ...]``, or a list with one object a prompt."""


class Shard:
    """One shard, as a recording of its prompts alone: what reads a `Recording` a batch at a time reads it too.

    rows : places of its prompts in the recording's table, int64 ``[n]``. arrays : as they were written.
    Its own rows are counted from 0, in the order of `rows`.
    """

    def __init__(self, recording: Recording, arrays: Arrays) -> None:
        self.recording, self.arrays, self.rows = recording, arrays, arrays["rows"]
        self.provenance, self.manifest, self.steps = recording.provenance, recording.manifest, recording.steps

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows of the recording's table."""
        return self.recording.table.iloc[self.rows].reset_index(drop=True)

    def phi_batches(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """All rows and their phi ``[n, steps, layers, width]``, once."""
        yield np.arange(len(self)), self.recording.kept_in(self.arrays, "phi")

    @property
    def sigma(self) -> np.ndarray:
        """The stored signal ``[n, steps]`` of a recording that keeps it in place of phi."""
        return self.recording.kept_in(self.arrays, "sigma")

    def all_steps_tokens(self) -> Iterator[tuple[int, StepTokens]]:
        """Pairs of a row and the token ids of its every step."""
        for at in range(len(self)):
            yield at, self.recording.tokens_of(self.arrays, at)

    def all_steps_text(self) -> Iterator[tuple[int, list[StepText]]]:
        """Pairs of a row and the texts of its every step, which are decoded once."""
        yield from enumerate(self._texts)

    @cached_property
    def _texts(self) -> list[list[StepText]]:
        return [self.recording.texts_of(tokens) for _, tokens in self.all_steps_tokens()]


@dataclass(frozen=True)
class Deriver:
    """What is computed from each shard.

    name : of the values and of their file. of : the values of a shard's prompts in its order, an array ``[n, ...]`` or
        a list of n. settings : plain values that, with the recording, tell what the values are; None for values that
        are not kept, else lists must hold None or texts a prompt.
    """

    name: str
    of: Callable[[Shard], Value]
    settings: Mapping[str, Any] | None = None

    def key(self, recording: Recording) -> str:
        """A sha256 over all that the values depend on; empty where they are not kept."""
        if self.settings is None or not recording.content:
            return ""
        made: dict[str, Any] = {"name": self.name, "settings": self.settings, "recording": recording.content}
        made |= {"format": FORMAT, "demur": demur.__version__}
        return hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()


def derive(recording: Recording, derivers: Sequence[Deriver]) -> dict[str, Value]:
    """The values of every deriver for a whole recording, in the order of its table: kept ones, or from one pass.

    Raises `InputError` for a damaged shard and for a prompt without a value.
    """
    found = {one.name: _kept(recording, one) for one in derivers}
    missing = [one for one in derivers if found[one.name] is None]
    if missing:
        gathering = Gathering(recording, missing)
        for shard in walk(recording):
            gathering.add(shard)
        found |= gathering.values
    for one in missing:
        _keep(recording, one, found[one.name])
    return found


def walk(recording: Recording) -> Iterator[Shard]:
    """Every shard of a recording, read once; together they hold each prompt once."""
    for arrays in recording.shards():
        yield Shard(recording, arrays)


class Gathering:
    """The values of derivers, gathered shard by shard.

    values : those of the whole recording by the derivers' names; `InputError` where a prompt has none.
    """

    def __init__(self, recording: Recording, derivers: Sequence[Deriver]) -> None:
        self.recording, self.derivers = recording, derivers
        self._values: dict[str, Value] = {}
        self._is_filled = np.zeros(len(recording), dtype=bool)

    def add(self, shard: Shard) -> None:
        """Derive the values of a shard and put them where they belong."""
        for one in self.derivers:
            found = one.of(shard)
            if len(found) != len(shard):
                raise ValueError(f"{one.name}: {len(found)} values for {len(shard)} prompts")
            self._place(one.name, found, shard.rows)
        self._is_filled[shard.rows] = True

    @property
    def values(self) -> dict[str, Value]:
        if not self._is_filled.all():
            row = int(np.argmin(self._is_filled))
            raise InputError(f"{self.recording.path}: holds nothing for row {row}; record it again")
        return self._values

    def _place(self, name: str, found: Value, rows: np.ndarray) -> None:
        if isinstance(found, np.ndarray):
            found, shape = np.asarray(found), (len(self.recording), *found.shape[1:])
            self._values.setdefault(name, np.zeros(shape, found.dtype))[rows] = found
            return
        whole = self._values.setdefault(name, [None] * len(self.recording))
        for row, value in zip(rows.tolist(), found, strict=True):
            whole[row] = value


def _kept(recording: Recording, deriver: Deriver) -> Value | None:
    """What an earlier pass kept; None where there is nothing, or where it is damaged or of something else."""
    key, path = deriver.key(recording), recording.path / FOLDER / deriver.name
    if not key or not is_own_folder(path.parent):
        return None
    with suppress(InputError, KeyError, TypeError):
        if path.with_suffix(".parquet").is_file():
            stored = read_table(path.with_suffix(".parquet"), ("values",))
            texts = [None if one is None else list(one) for one in stored.table["values"]]
            return texts if stored.marks.get("key") == key and len(texts) == len(recording) else None
        arrays, header = read_arrays(path.with_suffix(".safetensors"), _KIND)
        values = arrays["values"]
        return values if header.get("key") == key and len(values) == len(recording) else None
    return None


def _keep(recording: Recording, deriver: Deriver, values: Value) -> None:
    """Keep values beside the shards; where the disk refuses that, the next command reads the shards again."""
    key, path = deriver.key(recording), recording.path / FOLDER / deriver.name
    if not key:
        return
    with suppress(InputError), disk_errors(path):
        make_folder(path.parent)
        if not is_own_folder(path.parent):
            return
        if isinstance(values, np.ndarray):
            write_arrays(path.with_suffix(".safetensors"), {"values": values}, {"kind": _KIND, "key": key})
        else:
            _write_texts(path.with_suffix(".parquet"), values, key)


def _write_texts(path: Path, values: Sequence[Any], key: str) -> None:
    import pandas as pd

    write_table(path, pd.DataFrame({"values": pd.Series(list(values), dtype=object)}), {"key": key})
