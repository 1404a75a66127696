"""What opening a recording proves: every prompt once and in order, and shards and table that belong to it.

In: a folder and its manifest. Out: the whole table and what it says of each shard. Arrays are not read here; each
shard is held against its hash and its rows when it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from demur.errors import InputError
from demur.files.staging import READY, found
from demur.files.tables import Stored, read_table
from demur.files.writing import parse_json
from demur.provenance import Provenance
from demur.recording import folder as files
from demur.recording.folder import Arrays, ShardMark

COLUMNS = ("id", "prompt", "label", "attack", "group", "text", "refused", "row", "shard")


class Proven(NamedTuple):
    """The table of a recording in the order of its prompts, its shards by number, and the hash of both."""

    table: pd.DataFrame
    shards: Mapping[int, ShardMark]
    hash: str


def made_from(folder: Path, manifest: Mapping[str, Any]) -> Provenance:
    """The provenance of a recording; `InputError` where it is not what the recording's key was made from."""
    try:
        made = Provenance.from_dict(manifest["provenance"])
        keys = made.keys()
        if int(made.sampler["steps"]) < 1 or made.count < 1:
            raise ValueError(f"{made.sampler['steps']} steps and {made.count} prompts")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{folder / files.MANIFEST}: is damaged ({error}); record into a new folder") from error
    if manifest.get("key", keys[0]) not in keys:
        raise InputError(
            f"{folder / files.MANIFEST}: is damaged (its key is not that of its provenance); record into a new folder"
        )
    return made


def prove(folder: Path, manifest: Mapping[str, Any], count: int) -> Proven:
    """The table and the shards of a complete recording of `count` prompts."""
    path = found(folder, files.TABLE)
    if not path.is_file():
        raise _incomplete(path, "is missing")
    stored = read_table(path, COLUMNS)
    table = stored.table
    if not np.array_equal(table["row"].to_numpy(), np.arange(count)):
        raise _incomplete(path, f"does not hold the {count} prompts of the recording once each and in order")
    shards = _listed(path, stored, str(manifest.get("key", ""))) if stored.hash else _agreeing(folder, table)
    if set(shards) != set(table["shard"].tolist()):
        raise _incomplete(path, "does not agree with its list of shards")
    for number, mark in shards.items():
        if not found(folder, f"{files.SHARDS}/{number:06d}.parquet").is_file():
            raise files.damaged(folder / files.SHARDS / f"{number:06d}.parquet", "it is missing")
        files.require_size(folder, number, mark)
    strangers = sorted(set(files.shard_numbers(folder)) - set(shards))
    if strangers and not (folder / READY).is_dir():  # while a recording is replaced, shards of the old one may be left
        raise files.damaged(folder / files.SHARDS / f"{strangers[0]:06d}.parquet", "the recording's table lists it not")
    return Proven(table, shards, stored.hash)


def require_belonging(
    path: Path, arrays: Arrays, rows: np.ndarray, steps: int, layers: int, looks: int | None = None
) -> None:
    """Raise `InputError` where the arrays of a shard are not those of these rows of the table, or not as recorded.

    looks : how many, where states are kept at the looks.
    """
    kept, count = arrays.get("rows", np.zeros(0)), len(rows)
    shapes = {name: values.shape for name, values in arrays.items()}
    wrong = [name for name, shape in shapes.items() if shape[:1] != (count,)]
    wrong += [name for name in ("tokens", "committed_at") if len(shapes.get(name, ())) != 2]
    wrong += [name for name in ("phi", "sigma", "predicted") if name in shapes and shapes[name][1:2] != (steps,)]
    wrong += [name for name in ("states", "window") if name in shapes and shapes[name][1:2] != (looks,)]
    states = [name for name in ("phi", "states", "window") if name in shapes]
    wrong += [name for name in states if len(shapes[name]) != 4 or shapes[name][2] != layers]
    if wrong:
        raise files.damaged(path, f"{wrong[0]} has the shape {shapes.get(wrong[0])}")
    if not np.array_equal(np.sort(kept), np.sort(rows)):
        raise files.damaged(path, "its rows are not those of the recording's table")


def _listed(path: Path, stored: Stored, key: str) -> dict[int, ShardMark]:
    if stored.marks.get("recording") != key:
        raise _incomplete(path, "belongs to another recording")
    listed = parse_json(stored.marks.get("shards", "null"), path)
    try:
        return {int(number): ShardMark(int(size), str(content)) for number, (size, content) in listed.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise _incomplete(path, "holds no list of its shards") from error


def _agreeing(folder: Path, table: pd.DataFrame) -> dict[int, ShardMark]:
    """The shards of a recording of version 0.1, whose tables must say what the whole table says."""
    shards = {}
    for number in files.shard_numbers(folder):
        shard = files.read_shard(folder, number)
        columns = [name for name in table.columns if name in shard.table.columns]
        there = table[table["shard"] == number].sort_values("row", ignore_index=True)
        if not there[columns].equals(shard.table[columns].sort_values("row", ignore_index=True)):
            raise files.damaged(folder / files.SHARDS / f"{number:06d}.parquet", "the whole table says otherwise")
        shards[number] = files.mark_of(shard)
    return shards


def _incomplete(path: Path, reason: str) -> InputError:
    return InputError(f"{path}: {reason}; run the command that recorded it once more, which mends the table")
