"""Manifests: JSON files that carry their own hash, for settings and for lists of other files' hashes.

In: a path and plain values. Out: the same, read back, once the hash has shown that they are what was written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.files.seals import BLANK, require_allowed, require_sealed, seal_of, sealed
from demur.files.writing import parse_json, read_whole, write_whole

HASH = "hash"


def write_manifest(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` as JSON, with the hash of the file under "hash" in front."""
    try:
        content = json.dumps({HASH: BLANK, **values}, indent=2, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}: cannot be written, a name in it is no valid text ({error})") from error
    write_whole(path, sealed(content, "json"))


def read_manifest(path: Path) -> dict[str, Any]:
    """What `write_manifest` wrote, without the hash.

    Raises `InputError` for a file that is missing or damaged, and for one without a hash where that is not allowed.
    """
    content = read_whole(path)
    is_sealed = seal_of(content, "json") is not None
    if is_sealed:
        require_sealed(path, content, "json")
    values = parse_json(content, path, allow_nan=True)
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds {type(values).__name__}; expected a JSON object")
    if not is_sealed:
        if HASH in values:
            raise InputError(f"{path}: is damaged (its hash cannot be read); make it again")
        require_allowed(path, content)
    values.pop(HASH, None)
    return values
