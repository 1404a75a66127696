"""What makes anchors and guards shareable: `save_pretrained`, `push_to_hub`, `from_pretrained`.

In: a fitted thing with `save`, `load` and `summary`. Out: a folder or a repository of the Hub with its file, a manifest
of hashes and a card; and the thing again. What is in the file is each thing's own business.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from demur.errors import InputError
from demur.sharing.folder import MANIFEST, open_shared
from demur.sharing.measured import Measured, measured_rows

if TYPE_CHECKING:
    from demur.sharing.bundle import Bundle


class Shareable:
    """Saves itself to a folder for others, or to the Hugging Face Hub, and is read back from there."""

    @property
    def shared_kind(self) -> str:
        """What its file and the manifest call it."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file."""
        raise NotImplementedError

    def summary(self) -> dict[str, Any]:
        """What it was made from and is worth, as plain values."""
        raise NotImplementedError

    @classmethod
    def _readable(cls) -> Mapping[str, type[Shareable]]:
        """The classes that `from_pretrained` of this class may give, by the kind of their files."""
        raise NotImplementedError

    def _require_watched(self, source: Shareable) -> None:
        """Raise `InputError` unless this watches what `source` makes of states."""
        raise InputError(f"a {type(self).__name__} watches nothing, so source is left out")

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *,
        source: Shareable | None = None,
        measured: Measured | None = None,
        license: str | None = None,
    ) -> None:
        """Write a folder that `from_pretrained` reads: safetensors, `demur.json` with their hashes, and a card.

        source : of a `StreamingGuard`, the anchors or the `LinearGuard` that it watches, kept beside it.
        measured : false positives by kind of harmless prompt, for the card: ``{kind: (flagged, all)}``, a table with
        kind, hits and count, or the path of one, such as `false_positives.parquet` of `demur harden`.
        license : its identifier on the Hub. A card that demur wrote before is replaced.
        Raises `InputError` for a source that it does not watch, and for a folder that holds another model.
        """
        folder = Path(save_directory)
        bundle = self._bundle(source, measured, license, str(save_directory))
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder}: is a file; give a folder")
        if (folder / "config.json").exists():  # the mixin would remove it
            raise InputError(f"{folder}: holds a config.json, which demur did not write; give a folder of its own")
        if (folder / MANIFEST).exists():
            (folder / "README.md").unlink(missing_ok=True)
        bundle.save_pretrained(folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        source: Shareable | None = None,
        measured: Measured | None = None,
        license: str | None = None,
        **options: Any,
    ) -> str:
        """Save as `save_pretrained` does, into a repository of the Hub that is made where it is not there.

        repo_id : "owner/name". options : of `huggingface_hub.ModelHubMixin.push_to_hub`: private, token, branch,
        commit_message, create_pr. Returns the address of the commit. Raises `InputError` where the Hub refuses.
        """
        bundle = self._bundle(source, measured, license, repo_id)
        try:
            return str(bundle.push_to_hub(repo_id, **{"commit_message": f"Share a {type(self).__name__}", **options}))
        except InputError:
            raise
        except Exception as error:  # the client raises errors of several libraries
            reason = " ".join(str(error).split())[:300]
            raise InputError(
                f"{repo_id}: cannot be pushed to the Hugging Face Hub: {reason} "
                f"Check the name (owner/name), your connection and the token."
            ) from error

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
    ) -> Self:
        """Read a folder that `save_pretrained` wrote, or a repository of the Hub.

        pretrained_model_name_or_path : a folder, "owner/name" or "owner/name@revision". Where the folder holds several
        things, the first of this class is read. The other arguments are those of `huggingface_hub`.
        Raises `InputError` unless every file is the one that was shared, and one of them of this class.
        """
        said = pretrained_model_name_or_path
        shared = open_shared(
            said,
            revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        readable = cls._readable()
        path = shared.path(tuple(readable))
        if path is None:
            found = " and ".join(shared.files.values())
            raise InputError(f"{said}: holds {found}; {cls.__name__} reads {' or '.join(readable)}")
        return readable[shared.files[path.name]].load(path)  # type: ignore[attr-defined,no-any-return]

    def _bundle(self, source: Shareable | None, measured: Measured | None, license: str | None, place: str) -> Bundle:
        from demur.sharing.bundle import Bundle

        if source is not None:
            self._require_watched(source)
        things = [self] if source is None else [self, source]
        return Bundle(things, measured_rows(measured, type(self).__name__), place, license)
