"""The folder of a recording on disk.

`manifest.json` says what is recorded and from what; `shards/NNNNNN.safetensors` with `shards/NNNNNN.parquet`
hold one batch each, the arrays and the table; `table.parquet` is the whole table, written when all prompts are
done; `tokenizer/` turns token ids back into text. A shard counts from the moment its table is renamed into
place, which happens last, so a process killed at any moment leaves whole shards only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from demur.errors import InputError

FORMAT = 1
MANIFEST, TABLE, SHARDS, LOCK, TOKENIZER = "manifest.json", "table.parquet", "shards", ".lock", "tokenizer"
Arrays = dict[str, np.ndarray]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; another process that holds it is an `InputError`."""
    from filelock import FileLock, Timeout

    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"{folder}: another process is recording into this folder; wait for it or give another folder"
            ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk, a read-only place or a path through a file into an `InputError` that names it."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise InputError(
                f"{path}: no space left to write; what was recorded before is kept: "
                f"free some space and run the same command again"
            ) from error
        if isinstance(error, PermissionError | NotADirectoryError | FileExistsError) or error.errno == errno.EROFS:
            raise InputError(f"{path}: cannot be written ({error.strerror}); give a folder you can write to") from error
        raise


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a recording; `InputError` where there is none or it cannot be read."""
    path = folder / MANIFEST
    if not path.is_file():
        raise InputError(f"{folder}: is no recording (no {MANIFEST}); give the folder that `demur record` wrote")
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: is damaged ({error}); record into a new folder") from error
    if manifest.get("format") != FORMAT:
        raise InputError(f"{path}: format {manifest.get('format')!r} is not {FORMAT}; record again with this version")
    return manifest


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest whole or not at all."""
    text = json.dumps({"format": FORMAT, **manifest}, indent=2, sort_keys=True, ensure_ascii=False)
    _atomically(folder / MANIFEST, lambda path: path.write_text(text, encoding="utf-8"))


def write_shard(folder: Path, number: int, arrays: Arrays, table: pd.DataFrame) -> None:
    """Write one batch: the arrays first, then the table, whose arrival makes the shard count."""
    path = folder / SHARDS / f"{number:06d}"
    content = save_arrays(arrays)
    _atomically(path.with_suffix(".safetensors"), lambda to: to.write_bytes(content))
    marks = {b"arrays_bytes": str(len(content)).encode(), b"arrays_hash": _hash(content).encode()}
    rows = pa.Table.from_pandas(table, preserve_index=False)
    rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), **marks})
    _atomically(path.with_suffix(".parquet"), lambda to: pq.write_table(rows, to))


def write_table(folder: Path, table: pd.DataFrame) -> None:
    """Write the whole table."""
    _atomically(folder / TABLE, lambda path: table.to_parquet(path, index=False))


def save_tokenizer(folder: Path, tokenizer: Any) -> None:
    """Keep the tokenizer beside the token ids, so that they can be read anywhere."""
    if tokenizer is not None and not (folder / TOKENIZER).is_dir():
        part = folder / f"{TOKENIZER}.part"
        with disk_errors(folder):
            shutil.rmtree(part, ignore_errors=True)
            tokenizer.save_pretrained(part)
            part.replace(folder / TOKENIZER)


def shard_numbers(folder: Path) -> list[int]:
    """Numbers of the shards that count."""
    return sorted(int(path.stem) for path in (folder / SHARDS).glob("[0-9]*.parquet"))


def read_shard_table(folder: Path, number: int) -> pd.DataFrame:
    """The table of a shard; `InputError` where it or the size of its arrays is not as written."""
    path = folder / SHARDS / f"{number:06d}.parquet"
    try:
        rows = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, str(error)) from error
    arrays = path.with_suffix(".safetensors")
    expected = int(rows.schema.metadata[b"arrays_bytes"])
    found = arrays.stat().st_size if arrays.is_file() else 0
    if found != expected:
        raise _damaged(arrays, f"{found} bytes instead of {expected}")
    table: pd.DataFrame = rows.to_pandas()
    return table


def read_shard_arrays(folder: Path, number: int) -> Arrays:
    """The arrays of a shard; `InputError` where they are not those that were written."""
    path = folder / SHARDS / f"{number:06d}.safetensors"
    try:
        content = path.read_bytes()
        expected = pq.read_schema(path.with_suffix(".parquet")).metadata[b"arrays_hash"].decode()
    except (pa.ArrowInvalid, OSError) as error:
        raise _damaged(path, str(error)) from error
    if _hash(content) != expected:
        raise _damaged(path, "the content is not what was written")
    return dict(load_arrays(content))


def clear(folder: Path) -> None:
    """Remove a recording, and nothing else that may lie in its folder; a folder that holds none is left alone."""
    if not (folder / MANIFEST).is_file():
        return
    read_manifest(folder)  # another program's manifest.json is not ours to remove
    for name in (MANIFEST, TABLE):
        (folder / name).unlink(missing_ok=True)
    for name in (SHARDS, TOKENIZER):
        shutil.rmtree(folder / name, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove half-written files that a killed process left."""
    for path in folder.rglob("*.part"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write to a name beside `path`, flush to the disk, then rename into place."""
    part = path.with_name(path.name + ".part")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _hash(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=32).hexdigest()


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: this shard is damaged ({reason}); delete {path.stem}.parquet and {path.stem}.safetensors there "
        f"and run the same command again, which records their prompts anew"
    )
