"""Fewer, larger shards: those of single batches are joined while a recording goes on, and once more at its end.

In: the shards of a folder that is being recorded into. Out: the same rows in shards of about `SHARD_BYTES`. A joined
shard names those it replaces and counts from the moment its table is renamed into place, as any shard; the others count
no more from then on, and are removed. A kill at any moment leaves every row in one shard that counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from demur.files.writing import disk_errors, parse_json
from demur.recording import folder as files

SHARD_BYTES = 32 * 1024**2
"""Size of the arrays at which shards are joined; a joined shard takes about four times as much memory."""
MOST_LOOSE = 512
"""Shards of single batches that a folder holds at most."""
FEWEST = 64
"""So many shards are left as they are when a recording ends."""
REPLACES = "replaces"


class Compaction:
    """Joins the small shards of one recording as they come.

    folder : of the recording, locked by this process. key : of the recording.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key = folder, key
        self._loose: dict[int, int] = {}  # bytes by number
        numbers = files.shard_numbers(folder)
        self._next = max(numbers, default=-1) + 1
        for number in numbers:
            self._note(number)

    def write(self, arrays: files.Arrays, table: pd.DataFrame) -> None:
        """Write a shard, and join the small ones where they have become large or many."""
        self._note(self._write(arrays, table))
        if len(self._loose) >= MOST_LOOSE or (sum(self._loose.values()) >= SHARD_BYTES and len(self._loose) > 1):
            self._join()

    def finish(self) -> None:
        """Join what is left, where that is many shards."""
        if len(self._loose) > FEWEST:
            self._join()

    def _note(self, number: int) -> None:
        size = (self._folder / files.SHARDS / f"{number:06d}.safetensors").stat().st_size
        if size <= SHARD_BYTES // 4:
            self._loose[number] = size

    def _join(self) -> None:
        numbers, self._loose = sorted(self._loose), {}
        shards = [files.read_shard(self._folder, number, self._key) for number in numbers]
        parts = [
            files.read_shard_arrays(self._folder, number, files.mark_of(shard))
            for number, shard in zip(numbers, shards, strict=True)
        ]
        if len({_form(one) for one in parts}) > 1:  # of a sampler whose batches differ in shape: they stay apart
            return
        arrays = {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
        del parts
        table = pd.concat([shard.table for shard in shards], ignore_index=True)
        self._write(arrays, table, {REPLACES: json.dumps(numbers)})
        _remove(self._folder, numbers)

    def _write(self, arrays: files.Arrays, table: pd.DataFrame, marks: Mapping[str, str] | None = None) -> int:
        number, self._next = self._next, self._next + 1
        files.write_shard(self._folder, number, arrays, table.assign(shard=number), self._key, marks)
        return number


def counting(folder: Path) -> list[int]:
    """Numbers of the shards that count, in ascending order, whether or not those they replaced are gone."""
    return sorted(set(files.shard_numbers(folder)) - _replaced(folder))


def remove_replaced(folder: Path) -> None:
    """Remove the shards that joined ones have replaced and that a kill has left."""
    _remove(folder, sorted(_replaced(folder)))


def _replaced(folder: Path) -> set[int]:
    """Numbers of all shards that others have replaced, be they there or not."""
    gone: set[int] = set()
    for number in reversed(files.shard_numbers(folder)):  # what has been replaced may be half gone, and is not read
        if number not in gone:
            marks = files.read_shard(folder, number).marks
            path = folder / files.SHARDS / f"{number:06d}.parquet"
            gone.update(int(one) for one in parse_json(marks.get(REPLACES, "[]"), path))
    return gone


def _remove(folder: Path, numbers: list[int]) -> None:
    with disk_errors(folder):
        for number in numbers:
            for ending in (".parquet", ".safetensors"):  # without its table a shard does not count
                (folder / files.SHARDS / f"{number:06d}{ending}").unlink(missing_ok=True)


def _form(arrays: files.Arrays) -> tuple[object, ...]:
    return tuple(sorted((name, values.dtype.str, values.shape[1:]) for name, values in arrays.items()))
