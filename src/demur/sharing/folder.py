"""A shared folder: safetensors files, and a JSON manifest that lists them with their hashes.

In: fitted things, or a folder or Hub name. Out: the folder, or which files it holds, once names and hashes have shown
that they are what was shared. Nothing is unpickled, and no file is read that the manifest does not list.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import demur
from demur.errors import InputError
from demur.files.manifests import read_manifest, write_manifest
from demur.files.seals import hash_of
from demur.files.staging import settle, switched
from demur.files.writing import read_whole
from demur.sharing.places import fetched, named

if TYPE_CHECKING:
    from demur.sharing.shareable import Shareable

MANIFEST = "demur.json"
FORMAT = 1
"""Raised when a folder of this version could no longer be read by the code before."""
_FILE = re.compile(r"[a-z0-9][a-z0-9-]*\.safetensors")


@dataclass(frozen=True)
class Shared:
    """A shared folder whose manifest and files were checked.

    place : as it was asked for. folder : where the files are. files : kind by file name, what the folder is for first.
    commit : of the Hub, empty for a folder of one's own. facts : the summary of each kind. measured : false positives
    by kind of prompt, as rows with kind, hits, count, low and high; empty where none were given.
    """

    place: str
    folder: Path
    files: Mapping[str, str]
    commit: str
    facts: Mapping[str, Any]
    measured: list[dict[str, Any]]

    @property
    def main(self) -> Path:
        """The file that the folder was shared for."""
        return self.folder / next(iter(self.files))

    def path(self, kinds: tuple[str, ...]) -> Path | None:
        """The first file of one of these kinds, None where there is none."""
        return next((self.folder / name for name, kind in self.files.items() if kind in kinds), None)


def save_shared(
    folder: Path, things: list[Shareable], facts: Mapping[str, Any], measured: list[dict[str, Any]]
) -> None:
    """Write fitted things and their manifest into a folder: all at once or nothing."""
    if (folder / "config.json").exists():
        raise InputError(f"{folder}: holds a config.json, which demur did not write; give a folder of its own")
    with switched(folder, MANIFEST) as new:
        listed = {}
        for thing in things:
            name = f"{thing.shared_kind}.safetensors"
            thing.save(new / name)
            listed[name] = {"kind": thing.shared_kind, "hash": hash_of((new / name).read_bytes())}
        values = {"format": FORMAT, "demur": demur.__version__, "files": listed, "facts": facts, "measured": measured}
        write_manifest(new / MANIFEST, values)


def open_shared(place: str | os.PathLike[str], revision: str | None = None, **options: Any) -> Shared:
    """A folder that `save_pretrained` wrote, or the repository of a Hub name, with every listed file checked.

    options : of `huggingface_hub.snapshot_download`. Raises `InputError` for what is not there, was not shared by
    demur, is of a later format, or is not what the manifest says.
    """
    said = os.fspath(place)
    if Path(said).is_dir():
        if revision is not None:
            raise InputError(f"{said}: is a folder here, which has no revision {revision!r}; leave it out")
        folder, name, commit = Path(said), said, ""
        settle(folder, MANIFEST)
    else:
        name, revision = named(said, revision)
        folder = fetched(name, revision, [MANIFEST], **options)
        commit = folder.name
    files, values = _listed(folder, name)
    if commit:
        options.pop("force_download", None)
        folder = fetched(name, commit, list(files), **options)
    for file, listed in files.items():
        _require_same(folder / file, listed["hash"], name)
    return Shared(
        said,
        folder,
        {file: listed["kind"] for file, listed in files.items()},
        commit,
        values.get("facts") or {},
        values.get("measured") or [],
    )


def _listed(folder: Path, name: str) -> tuple[dict[str, dict[str, str]], dict[str, Any]]:
    """The files that a manifest lists, and the whole manifest, once its form is right."""
    path = folder / MANIFEST
    if not path.exists():
        raise InputError(f"{name}: holds no {MANIFEST}; give what save_pretrained or push_to_hub of demur made")
    values = read_manifest(path)
    made, files = values.get("format"), values.get("files")
    if not isinstance(made, int) or made > FORMAT:
        raise InputError(
            f"{name}: has format {made!r}, written by demur {values.get('demur')}; this demur ({demur.__version__}) "
            f"reads up to {FORMAT}. Install that version, or share it again."
        )
    if not isinstance(files, dict) or not files or not all(map(_is_listed, files, files.values())):
        raise InputError(f"{name}: its {MANIFEST} does not list files as demur does; share it again")
    return files, values


def _is_listed(name: str, listed: Any) -> bool:
    """Whether a line names a file of the folder itself, with kind and hash; a path out of the folder is none."""
    texts = isinstance(listed, dict) and all(isinstance(listed.get(key), str) for key in ("kind", "hash"))
    return texts and _FILE.fullmatch(name) is not None


def _require_same(path: Path, expected: str, name: str) -> None:
    if not path.exists():
        raise InputError(f"{name}: lacks {path.name}, which its {MANIFEST} lists; share it again")
    if hash_of(read_whole(path)) != expected:
        raise InputError(f"{name}: {path.name} is not the file that its {MANIFEST} lists; fetch or share it again")
