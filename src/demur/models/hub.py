"""A checkpoint of the Hugging Face Hub as a folder in the local cache.

In: a Hub id. Out: the folder of one commit, which holds the settings and safetensors of that checkpoint, or one of
its `.gguf` files, and no pickled weights. Code comes along only where it was asked for.
"""

from __future__ import annotations

from pathlib import Path

from demur.errors import InputError
from demur.models.json_file import read_json_if_there
from demur.models.weight_files import INDEX, SINGLE
from demur.sharing.places import is_reached as _is_reached

SETTINGS = ("*.json", "*.jinja", "*.txt", "*.model")


def hub_folder(name: str, revision: str | None, gguf_file: str | None, *, code: bool) -> Path:
    """The cached folder of a Hub id, filled from the Hub where it lacks a file; its name is the commit."""
    if gguf_file is not None:
        return _fetched(name, revision, [gguf_file])
    folder = _fetched(name, revision, [*SETTINGS, *(["*.py"] if code else [])])
    return _fetched(name, folder.name, weights_to_fetch(folder))


def weights_to_fetch(folder: Path) -> list[str]:
    """Which weight files belong to the settings in a folder; the index is read without its files being there."""
    wanted = ["adapter_model.safetensors"] if (folder / "adapter_config.json").is_file() else []
    if (folder / INDEX).is_file():
        return [
            *wanted,
            *sorted(set(map(str, dict(read_json_if_there(folder / INDEX).get("weight_map") or {}).values()))),
        ]
    return [*wanted, SINGLE]


def _fetched(name: str, revision: str | None, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    reached = _is_reached()
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=files, local_files_only=not reached))
    except Exception as error:  # the client raises errors of several libraries
        unreached = "it cannot be reached, and the cache holds no such model."
        reason = " ".join(str(error).split())[:300] if reached else unreached
        raise InputError(
            f"{name}: no folder of this name here, and the Hugging Face Hub gave no model: {reason} "
            f"Check the name, your connection, and for gated models the licence and token."
        ) from error
