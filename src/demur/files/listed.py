"""Files that belong together, listed by a manifest with their hashes: none of them can be swapped unseen.

In: the folder of the files. Out: their names and hashes, for the manifest; on reading, the check of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.files.manifests import read_manifest
from demur.files.seals import hash_of
from demur.files.staging import found
from demur.files.writing import read_whole

FILES = "files"
"""The manifest's key of the list. Manifests of earlier versions have none; nothing of theirs is checked."""


def hashes_of(folder: Path) -> dict[str, str]:
    """The hash of every file in a folder, by name; `InputError` where it holds anything else."""
    return {path.name: hash_of(read_whole(path)) for path in sorted(folder.iterdir())}


def require_listed(folder: Path, manifest: str) -> None:
    """Raise `InputError` unless the files that a folder's manifest lists are those it was written with.

    manifest : name of the file; a folder without it passes.
    """
    path = found(folder, manifest)
    if path.is_file():
        require_hashes(folder, read_manifest(path).get(FILES), manifest)


def listed(folder: Path, manifests: Sequence[str]) -> set[str] | None:
    """The names that the manifests of a folder list; None where there is no manifest, or one without a list."""
    there = [path for name in manifests if (path := found(folder, name)).is_file()]
    lists = [read_manifest(path).get(FILES) for path in there]
    names = [set(one) for one in lists if isinstance(one, dict)]
    return set().union(*names) if names and len(names) == len(there) else None


def require_hashes(folder: Path, hashes: Any, manifest: str) -> None:
    """As `require_listed`, with the list that was read from the manifest."""
    for name, expected in (hashes if isinstance(hashes, dict) else {}).items():
        if Path(name).name != name:
            raise InputError(f"{folder / manifest}: lists {name!r}, which is no name of a file beside it")
        path = found(folder, name)
        if not path.is_file():
            raise InputError(f"{path}: is missing, and {manifest} lists it; make the folder again with its command")
        if hash_of(read_whole(path)) != expected:
            raise InputError(
                f"{path}: is not the file that {manifest} was written with; put that one back, or make the folder "
                "again with its command"
            )
