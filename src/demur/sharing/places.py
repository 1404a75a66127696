"""Where shared things lie: names of the Hugging Face Hub, and the folders that hold what was fetched.

In: a folder or "owner/name", with "@revision" behind it where one commit is meant. Out: a local folder with the files
that were asked for. What is in the files is not looked at here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from demur.errors import InputError

PATIENCE = 5.0
"""Seconds in which the Hub has to answer."""
_NAME = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")
_FILE_ENDINGS = (".safetensors", ".parquet", ".json", ".jsonl", ".csv")


def is_hub_name(text: str | os.PathLike[str]) -> bool:
    """Whether this is "owner/name" or "owner/name@revision", and neither a file or folder here nor a file's name."""
    said = os.fspath(text)
    return not Path(said).exists() and not said.endswith(_FILE_ENDINGS) and _NAME.fullmatch(said) is not None


def named(text: str, revision: str | None) -> tuple[str, str | None]:
    """The name and the revision of "owner/name" or "owner/name@revision"; two revisions are an `InputError`."""
    found = _NAME.fullmatch(text)
    if found is None:
        raise InputError(f"{text}: is no file or folder here and no name of the Hub; give owner/name")
    if found["revision"] and revision and found["revision"] != revision:
        raise InputError(f"{text} and revision {revision!r} name two commits; give one of them")
    return found["name"], found["revision"] or revision


def fetched(name: str, revision: str | None, files: list[str], **options: Any) -> Path:
    """The cached folder of a repository with these files, as far as it holds them; the folder's name is the commit.

    options : of `huggingface_hub.snapshot_download`. Raises `InputError` where the Hub gives nothing and the cache
    holds nothing.
    """
    from huggingface_hub import snapshot_download

    reached = options.pop("local_files_only", False) or is_reached()
    try:
        found = snapshot_download(
            name, revision=revision, allow_patterns=files, **{**options, "local_files_only": not reached}
        )
    except Exception as error:  # the client raises errors of several libraries
        unreached = "it cannot be reached, and the cache holds nothing of this name."
        reason = " ".join(str(error).split())[:300] if reached else unreached
        raise InputError(
            f"{name}: no file or folder of this name here, and the Hugging Face Hub gave none: {reason} "
            f"Check the name and revision, your connection, and for private repositories the token."
        ) from error
    return Path(found)


def is_reached() -> bool:
    """Whether the Hub answers at all, asked first: its client would try for most of a minute, and say so each time."""
    from huggingface_hub import constants, get_session

    if constants.is_offline_mode():
        return True  # the client knows by itself
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except Exception:  # of whichever library the client uses
        return False
    return True
