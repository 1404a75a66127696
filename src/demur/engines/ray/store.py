"""A place that driver and workers share, in which finished batches wait until their rows are in the recording.

In: a batch and a name made from its content. Out: one object of that name, a sealed safetensors file, whole or not
there: in a folder it is renamed into place, an object store takes it in one call, and half of one has no valid seal. A
batch that is computed twice is one object. The place is a folder or a URL of fsspec; nothing here knows of Ray.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from demur.errors import InputError
from demur.files.arrays import arrays_of, bytes_of
from demur.files.writing import remove_leftovers, write_whole
from demur.looks import Looks
from demur.models import Model
from demur.recording.encoded import Encoded
from demur.recording.generate import Batch, inputs_hash
from demur.recording.recorder import describe
from demur.samplers import Sampler

KIND = "batch"
_ARRAYS = ("rows", "phi", "window", "tokens", "committed_at", "predicted")
_VALUES = ("texts", "prompt_tokens", "seconds")


class Names:
    """Names of the batches of a run: a hash of all that decides what is in them, and of the versions."""

    def __init__(self, model: Model, sampler: Sampler, layers: Sequence[int], looks: Looks | None) -> None:
        of = describe(model, [], sampler, layers)
        kept = None if looks is None else [list(looks.steps), looks.window]
        self._run = [of.key(), dict(of.versions), list(model.eos_token_ids), kept]

    def of(self, chosen: Sequence[Encoded]) -> str:
        """The name of the batch of these prompts."""
        rows = [[int(one.row), int(one.sample), one.whole] for one in chosen]
        content = json.dumps([self._run, inputs_hash(chosen), rows], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


class Store:
    """Batches by name in a folder, which must exist, or at a URL of fsspec, such as s3://bucket/prefix.

    It can be pickled, and is opened anew where it arrives. Raises `InputError` for a URL that fsspec cannot open.
    """

    def __init__(self, url: str) -> None:
        if not url:
            raise InputError("the store is ''; give a folder or a URL that all machines share")
        self.url = url.rstrip("/")
        filesystem, root = self._opened()
        if isinstance(filesystem, LocalFileSystem):
            self.url = str(root)  # absolute: a worker may stand elsewhere
            if not filesystem.isdir(root):
                raise InputError(f"{root}: there is no such folder; make it on a disk that all machines share")

    def names(self) -> set[str]:
        """Names of all batches that are there, be they whole or not."""
        filesystem, root = self._opened()
        with self._refusing("read"):
            if isinstance(filesystem, LocalFileSystem):
                remove_leftovers(Path(root))
            filesystem.invalidate_cache()
            try:
                paths = filesystem.ls(root, detail=False)
            except FileNotFoundError:  # an object store knows no empty folders
                return set()
        return {Path(path).stem for path in paths}

    def put(self, name: str, batch: Batch) -> None:
        """Keep a batch, in place of one that is there."""
        arrays = {one: values for one in _ARRAYS if (values := getattr(batch, one)) is not None}
        values = {one: getattr(batch, one) for one in _VALUES}
        content = bytes_of(arrays, {"kind": KIND, "name": name, **values})
        filesystem, root = self._opened()
        if isinstance(filesystem, LocalFileSystem):
            write_whole(_path(root, name), content, parents=False, sweep=False)
            return
        with self._refusing("written", name):
            filesystem.pipe_file(_path(root, name), content)

    def get(self, name: str) -> Batch | None:
        """A batch; None where it is missing or not what was put there."""
        filesystem, root = self._opened()
        with self._refusing("read", name):
            try:
                content = filesystem.cat_file(_path(root, name))
            except FileNotFoundError:
                return None
        try:
            arrays, header = arrays_of(content, Path(_path(root, name)), KIND)
        except InputError:
            return None
        return _batch(arrays, header) if header.get("name") == name else None

    def remove(self, name: str) -> None:
        """Remove a batch, if the store lets it be removed; one that stays does no harm."""
        filesystem, root = self._opened()
        with suppress(Exception):  # each file system has errors of its own
            filesystem.rm_file(_path(root, name))

    def _opened(self) -> tuple[AbstractFileSystem, str]:
        try:
            filesystem, root = url_to_fs(self.url)
        except Exception as error:  # an unknown protocol, a package that is missing, whatever a service refuses
            raise InputError(
                f"{self.url}: cannot be opened ({_first_line(error)}); give a folder or a URL that fsspec opens here"
            ) from error
        return filesystem, root.rstrip("/")

    @contextmanager
    def _refusing(self, what: str, name: str = "") -> Iterator[None]:
        """Turn whatever a file system refuses into an `InputError`; their errors have no common class."""
        try:
            yield
        except Exception as error:
            place = _path(self.url, name) if name else self.url
            raise InputError(
                f"{place}: cannot be {what} ({_first_line(error)}); what was recorded is kept: mend the store, or give "
                f"another, and run the same command again"
            ) from error


def _path(root: str, name: str) -> str:
    return f"{root}/{name}.safetensors"


def _batch(arrays: dict[str, np.ndarray], header: dict[str, Any]) -> Batch:
    fields: dict[str, Any] = {**dict.fromkeys(_ARRAYS), **arrays, **{one: header[one] for one in _VALUES}}
    return Batch(**fields)


def _first_line(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(reason).splitlines()[0][:200]
