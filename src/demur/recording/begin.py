"""Where a recording goes: into its folder, on with what is there, or beside an older one until it is complete.

In: a folder and the manifest of what is to be recorded. Out: the folder to record into, and which prompts are done
already. An older recording that is to be replaced stays whole until the new one is: that is recorded in a folder
inside, and takes the old one's place with one rename.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from demur.errors import InputError
from demur.files.staging import READY, commit, discard, found, is_own_folder
from demur.files.staging import settle as move
from demur.files.tables import read_table
from demur.files.writing import disk_errors, is_leftover, make_folder, parse_json, read_whole, remove_leftovers
from demur.recording import folder as files
from demur.recording.compaction import remove_replaced
from demur.recording.proof import made_from, prove
from demur.recording.same import another, differing, is_older, require_same_inputs, warn_of_differences

NEW = ".demur-new"
"""A recording that will replace the one in whose folder it lies."""
_EARLIER = {f"{name}.part" for name in (files.MANIFEST, files.TABLE, files.TOKENIZER)}
"""What a killed process of version 0.1 left."""


def require_free(folder: Path) -> None:
    """Raise `InputError` for a folder that is no recording and holds anything that demur did not make."""
    with disk_errors(folder):
        if files.is_recording(folder) or not folder.is_dir():
            return
        known = {files.LOCK, NEW, READY, *_EARLIER}
        strangers = sorted(path.name for path in folder.iterdir() if path.name not in known and not is_leftover(path))
    if strangers:
        raise InputError(f"{folder}: is no recording but holds {strangers[0]!r}; give an empty or a new folder")


def begin(folder: Path, manifest: Mapping[str, Any], *, resume: bool) -> Path:
    """The folder to record into, made ready: `folder` itself, or one inside it that is to replace what is there."""
    with disk_errors(folder):
        settle(folder)
        for place in (folder, folder / files.SHARDS, folder / NEW, folder / NEW / files.SHARDS):
            if is_own_folder(place):
                remove_leftovers(place)
        new = folder / NEW
        if not files.is_recording(folder):
            require_free(folder)
            discard(new)
            files.write_manifest(folder, manifest)
            return folder
        if resume and not (names := differing(there := files.read_manifest(folder), manifest)):
            if not there["complete"]:  # what is complete stands as it ran; nothing is mixed with it
                require_same_inputs(folder, there, manifest)
            warn_of_differences(folder, there, manifest)
            discard(new)
            return folder
        files.require_format(folder)  # another program's manifest.json is not ours to replace
        if _is_begun(new, manifest):
            return new
        if resume:
            raise another(folder, there, names)
        discard(new)
        make_folder(new)
        files.write_manifest(new, manifest)
        return new


def done_rows(root: Path, manifest: Mapping[str, Any]) -> tuple[np.ndarray, bool]:
    """The rows that are recorded already, int64, and whether the recording is complete and proven."""
    there, count = files.read_manifest(root), int(manifest["provenance"]["count"])
    if there["complete"]:
        with suppress(InputError):
            made_from(root, there)
            prove(root, there, count)
            return np.arange(count), True
        require_same_inputs(root, there, manifest)
        if is_older(there, manifest):  # what would be recorded anew must not be mixed with it
            raise another(root, there, ["versions, and is damaged"])
    remove_replaced(root)
    shard_of = np.full(count, -1)
    for number in files.shard_numbers(root):
        path = root / files.SHARDS / f"{number:06d}.parquet"
        for row in files.read_shard(root, number, there.get("key")).table["row"].tolist():
            if not isinstance(row, int) or not 0 <= row < count:
                raise files.damaged(path, f"its row {row} is none of the {count} prompts")
            if shard_of[row] not in (-1, number):
                raise files.damaged(path, f"its row {row} is in shard {shard_of[row]:06d} too")
            shard_of[row] = number
    return np.flatnonzero(shard_of >= 0), False


def replace(folder: Path, root: Path) -> None:
    """Let the complete recording in `root` take the place of the one in `folder`."""
    with disk_errors(folder):
        commit(root, folder)
        settle(folder)


def settle(folder: Path) -> None:
    """Go on with a replacement that a kill stopped, from the moment on at which the new recording counts."""
    ready = folder / READY
    if not is_own_folder(ready):
        return
    if (ready / files.MANIFEST).is_file():
        _remove_old(folder, ready)
    move(folder, files.MANIFEST)


def _is_begun(new: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether the same recording was begun there already."""
    with suppress(InputError):
        if not is_own_folder(new):
            return False
        there = {**files.read_manifest(new), "complete": False}
        require_same_inputs(new, there, manifest)
        return not differing(there, manifest)
    return False


def _remove_old(folder: Path, ready: Path) -> None:
    """Remove the shards and the tokenizer of the old recording, and nothing that demur did not write."""
    listed = parse_json(read_table(found(folder, files.TABLE)).marks["shards"], folder / files.TABLE)
    kept = {int(number) for number in listed}
    _unlink(path for path, number in files.shard_files(folder).items() if number not in kept)
    place = folder / files.TOKENIZER
    comes = files.read_manifest(folder).get("tokenizer") or {}
    if not is_own_folder(place) or (comes and not (ready / files.TOKENIZER).is_dir()):
        return
    old = folder / files.MANIFEST
    names = parse_json(read_whole(old), old, allow_nan=True).get("tokenizer")
    _unlink(path for path in place.iterdir() if names is None or path.name in names)
    with suppress(OSError):  # something foreign is in it
        place.rmdir()


def _unlink(paths: Iterable[Path]) -> None:
    for path in list(paths):
        if path.is_file() and not path.is_symlink():
            path.unlink()
