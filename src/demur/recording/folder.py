"""The folder of a recording on disk.

`manifest.json` says what is recorded and from what; `shards/NNNNNN.safetensors` with `shards/NNNNNN.parquet`
hold a batch or several joined ones (see `compaction`), the arrays and the table; `table.parquet` is the whole table
with the hashes of all shards, written when all prompts are done; `tokenizer/` turns token ids back into text. A shard
counts from the moment its table is renamed into place, which happens last, so a process killed at any moment leaves
whole shards only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from demur.errors import InputError
from demur.files import manifests
from demur.files.listed import hashes_of
from demur.files.locking import LOCK, locked
from demur.files.seals import hash_of
from demur.files.staging import found, is_own_folder
from demur.files.tables import Stored, read_table
from demur.files.tables import write_table as write_parquet
from demur.files.writing import disk_errors, parse_json, read_whole, sync_folder, temporary_beside, write_whole

__all__ = ["LOCK", "disk_errors", "locked"]

FORMAT = 1
KEPT = ("phi", "signal", "looks")
"""What a recording keeps of the states: phi of every step, the signal in its place, or the states at the looks."""
MANIFEST, TABLE, SHARDS, TOKENIZER = "manifest.json", "table.parquet", "shards", "tokenizer"
Arrays = dict[str, np.ndarray]
_SHARD = re.compile(r"([0-9]{6,9})\.(parquet|safetensors)")
_KEY = "recording"


class ShardMark(NamedTuple):
    """What the table of a shard says of its arrays."""

    size: int
    hash: str


def is_recording(folder: Path) -> bool:
    """Whether a folder holds a recording, complete or not, or another program's manifest."""
    return found(folder, MANIFEST).is_file()


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a recording; `InputError` where there is none or it cannot be trusted."""
    path = found(folder, MANIFEST)
    require_format(folder)
    manifest = manifests.read_manifest(path)
    lacking = {"provenance", "keep", "complete", "revises", "eos_token_ids"} - manifest.keys()
    if lacking or not isinstance(manifest["provenance"], dict) or manifest["keep"] not in KEPT:
        raise InputError(f"{path}: is damaged (its fields are not those of a recording); record into a new folder")
    return manifest


def require_format(folder: Path) -> None:
    """Raise `InputError` unless the folder's manifest is of a recording of this format, be it damaged or not."""
    path = found(folder, MANIFEST)
    if not path.is_file():
        raise InputError(f"{folder}: is no recording (no {MANIFEST}); give the folder that `demur record` wrote")
    values = parse_json(read_whole(path), path, allow_nan=True)
    there = values.get("format") if isinstance(values, dict) else None
    if there != FORMAT:
        raise InputError(f"{path}: format {there!r} is not {FORMAT}; record again with this version")


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest whole or not at all."""
    manifests.write_manifest(folder / MANIFEST, dict(sorted({"format": FORMAT, **manifest}.items())))


def write_shard(
    folder: Path, number: int, arrays: Arrays, table: pd.DataFrame, key: str = "", more: Mapping[str, str] | None = None
) -> None:
    """Write one shard: the arrays first, then the table, whose arrival makes the shard count.

    key : of the recording, so that shards of two recordings are never mixed. more : further marks of the table.
    """
    path = folder / SHARDS / f"{number:06d}"
    content = save_arrays(arrays)
    write_whole(path.with_suffix(".safetensors"), content, sweep=False)
    marks = {"arrays_bytes": str(len(content)), "arrays_hash": hash_of(content), _KEY: key, **(more or {})}
    write_parquet(path.with_suffix(".parquet"), table, marks, sweep=False)


def write_table(
    folder: Path, table: pd.DataFrame, shards: Mapping[int, ShardMark] | None = None, key: str = ""
) -> None:
    """Write the whole table, with the sizes and hashes of the shards; by default of those in the folder."""
    if shards is None:
        shards = {number: mark_of(read_shard(folder, number)) for number in shard_numbers(folder)}
    listed = json.dumps({str(number): list(mark) for number, mark in sorted(shards.items())})
    write_parquet(folder / TABLE, table, {_KEY: key, "shards": listed})


def save_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Keep the tokenizer beside the token ids, so that they can be read anywhere."""
    if tokenizer is not None:
        keep_tokenizer(folder, tokenizer.save_pretrained)


def keep_tokenizer(folder: Path, save: Callable[[Path], Any]) -> None:
    """Keep the files of a tokenizer, which `save` writes into the folder it is given; those that are there stay."""
    if (folder / TOKENIZER).is_dir():
        return
    with disk_errors(folder), temporary_beside(folder / TOKENIZER) as part:
        part.mkdir()
        try:
            save(part)
        except Exception as error:  # tokenizers raises a bare Exception for a full disk
            raise InputError(
                f"{folder / TOKENIZER}: cannot be written ({error}); what was recorded before is kept: "
                f"free some space and run the same command again"
            ) from error
        for path in part.iterdir():
            write_whole(path, path.read_bytes(), sweep=False)  # flushed to the disk
        part.rename(folder / TOKENIZER)
        sync_folder(folder)


def tokenizer_hashes(folder: Path) -> dict[str, str]:
    """The hash of every file of the tokenizer, by its name."""
    place = found(folder, TOKENIZER)
    if not is_own_folder(place):
        return {}
    return hashes_of(place)


def shard_numbers(folder: Path) -> list[int]:
    """Numbers of the shards in a folder."""
    place = folder / SHARDS
    names = [_SHARD.fullmatch(path.name) for path in place.iterdir()] if place.is_dir() else []
    return sorted(int(name[1]) for name in names if name and name[2] == "parquet")


def shard_files(folder: Path) -> dict[Path, int]:
    """Every file of a shard in a folder, with its number: regular files of the names that demur gives."""
    place = folder / SHARDS
    paths = place.iterdir() if is_own_folder(place) else ()
    names = {path: _SHARD.fullmatch(path.name) for path in paths if path.is_file() and not path.is_symlink()}
    return {path: int(name[1]) for path, name in names.items() if name}


def read_shard(folder: Path, number: int, key: str | None = None) -> Stored:
    """The table of a shard and its marks.

    key : of the recording that it must belong to, if known.
    Raises `InputError` where it, or the size of its arrays, is not as written.
    """
    path = found(folder, f"{SHARDS}/{number:06d}.parquet")
    try:
        stored = read_table(path, ("row", "shard", "id"))
    except InputError as error:
        if "carries no hash" in str(error):
            raise
        raise damaged(path, str(error).partition(": ")[2]) from error
    if key is not None and stored.marks.get(_KEY, key) != key:
        raise damaged(path, "it belongs to another recording")
    if not (stored.table["shard"] == number).all():
        raise damaged(path, f"it is a copy of shard {stored.table['shard'].iloc[0]}")
    require_size(folder, number, mark_of(stored))
    return stored


def read_shard_table(folder: Path, number: int) -> pd.DataFrame:
    """The table of a shard; see `read_shard`."""
    return read_shard(folder, number).table


def mark_of(shard: Stored) -> ShardMark:
    """What the table of a shard says of its arrays."""
    return ShardMark(int(shard.marks["arrays_bytes"]), shard.marks["arrays_hash"])


def require_size(folder: Path, number: int, mark: ShardMark) -> None:
    """Raise `InputError` where the arrays of a shard are missing or of another size than written."""
    arrays = found(folder, f"{SHARDS}/{number:06d}.safetensors")
    size = arrays.stat().st_size if arrays.is_file() else 0
    if size != mark.size:
        raise damaged(arrays, f"{size} bytes instead of {mark.size}")


def read_shard_arrays(folder: Path, number: int, mark: ShardMark | None = None) -> Arrays:
    """The arrays of a shard; `InputError` where they are not those that were written.

    mark : what the recording's table says of them; by default, what the shard's own table says.
    """
    path = found(folder, f"{SHARDS}/{number:06d}.safetensors")
    mark = mark or mark_of(read_shard(folder, number))
    try:
        content = read_whole(path)
    except InputError as error:
        raise damaged(path, str(error).partition(": ")[2]) from error
    if hash_of(content) != mark.hash:
        raise damaged(path, "the content is not what was written")
    return dict(load_arrays(content))


def damaged(path: Path, reason: str) -> InputError:
    """The error of a shard that is not as written."""
    return InputError(
        f"{path}: this shard is damaged ({reason}); delete {path.stem}.parquet and {path.stem}.safetensors there "
        f"and run the same command again, which records their prompts anew"
    )
