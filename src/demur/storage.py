"""Fitted things on disk: arrays in safetensors, with one JSON header that says what they are.

In: a path, named arrays and a header of plain values. Out: the same, read back. Nothing is ever unpickled, and a
file is either whole or not there. What the header means is left to whoever wrote it.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import demur
from demur.errors import InputError

FORMAT_VERSION = 1
"""Raised when a file of this version could no longer be read by the code before."""

_HEADER = "demur"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> None:
    """Write `arrays` with a JSON `header` to `path`, replacing what is there in one move.

    header : plain values, among them "kind", which `read_arrays` asks for; "format" and "demur", the
        versions of the format and of the package, are added.
    Raises `InputError` where the disk is full or the path cannot be written.
    """
    from safetensors.numpy import save

    path = Path(path)
    full = {**header, "format": FORMAT_VERSION, "demur": demur.__version__}
    content = save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, {_HEADER: json.dumps(full)})
    # A name of its own in the same folder: the move is atomic only within one file system.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise InputError(
                f"{path}: the disk is full ({len(content):,} bytes needed); make room or give another folder."
            ) from error
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); give a path in a folder that exists and may be written to."
        ) from error


def read_arrays(path: str | os.PathLike[str], *kinds: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and header of a file that `write_arrays` wrote with one of these `kinds`.

    Raises `InputError` for a file that is missing, damaged, of another kind or of a later format.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    mend = f"Give a file that demur saved as {' or '.join(kinds)}."
    try:
        with safe_open(path, framework="numpy") as file:
            header = json.loads((file.metadata() or {}).get(_HEADER, "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file. {mend}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}). {mend}") from error
    except (SafetensorError, ValueError, TypeError) as error:
        raise InputError(f"{path}: is damaged or no safetensors file ({error}). {mend}") from error
    if not isinstance(header, dict):
        raise InputError(f"{path}: is a safetensors file without a demur header. {mend}")
    if header.get("kind") not in kinds:
        raise InputError(f"{path}: holds {header.get('kind')!r}; expected {' or '.join(map(repr, kinds))}. {mend}")
    if not isinstance(header.get("format"), int) or header["format"] > FORMAT_VERSION:
        raise InputError(
            f"{path}: has format {header.get('format')!r}, written by demur {header.get('demur')}; this demur "
            f"({demur.__version__}) reads up to {FORMAT_VERSION}. Install that version, or save the file again."
        )
    return arrays, header
