"""Fitted things on disk: arrays in safetensors, with one JSON header that says what they are.

In: a path, named arrays and a header of plain values. Out: the same, read back, once the file's hash has shown that
they are what was written. Nothing is ever unpickled, and a file is either whole or not there. What the header means is
left to whoever wrote it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import demur
from demur.errors import InputError
from demur.files.seals import BLANK, Span, require_allowed, require_sealed, seal_of, sealed
from demur.files.seals import allow_unverified as allowing
from demur.files.writing import parse_json, read_whole, write_whole

FORMAT_VERSION = 1
"""Raised when a file of this version could no longer be read by the code before."""

_HEADER = "demur"


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> None:
    """Write `arrays` with a JSON `header` to `path`, replacing what is there in one move.

    header : plain values, among them "kind", which `read_arrays` asks for; "format" and "demur", the
        versions of the format and of the package, and "hash", that of the whole file, are added.
    Raises `InputError` where the disk is full or the path cannot be written.
    """
    write_whole(path, bytes_of(arrays, header), parents=False)


def bytes_of(arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> bytes:
    """The file that `write_arrays` writes."""
    from safetensors.numpy import save

    full = {"hash": BLANK, **header, "format": FORMAT_VERSION, "demur": demur.__version__}
    content = save({name: np.ascontiguousarray(a) for name, a in arrays.items()}, {_HEADER: json.dumps(full)})
    return sealed(content, "safetensors", _header_span(content))


def read_arrays(
    path: str | os.PathLike[str], *kinds: str, allow_unverified: bool = False
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Arrays and header of a file that `write_arrays` wrote with one of these `kinds`.

    allow_unverified : read files of demur 0.1 too, which carry no hash.
    Raises `InputError` for a file that is missing, damaged, of another kind or of a later format.
    """
    return arrays_of(read_whole(Path(path)), Path(path), *kinds, allow_unverified=allow_unverified)


def arrays_of(
    content: bytes, path: Path, *kinds: str, allow_unverified: bool = False
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """As `read_arrays`, of the bytes of a file. path : its name, for messages."""
    mend = f"Give a file that demur saved as {' or '.join(kinds)}."
    span = _header_span(content)
    is_sealed = seal_of(content, "safetensors", span) is not None
    if is_sealed:
        require_sealed(path, content, "safetensors", span)
    arrays, header = _parse(path, content, span, mend)
    if not isinstance(header, dict):
        raise InputError(f"{path}: is a safetensors file without a demur header. {mend}")
    if header.get("kind") not in kinds:
        raise InputError(f"{path}: holds {header.get('kind')!r}; expected {' or '.join(map(repr, kinds))}. {mend}")
    if not isinstance(header.get("format"), int) or header["format"] > FORMAT_VERSION:
        raise InputError(
            f"{path}: has format {header.get('format')!r}, written by demur {header.get('demur')}; this demur "
            f"({demur.__version__}) reads up to {FORMAT_VERSION}. Install that version, or save the file again."
        )
    if not is_sealed:
        if "hash" in header:
            raise InputError(f"{path}: is damaged (its hash cannot be read). {mend}")
        with allowing(allow_unverified):
            require_allowed(path, content)
    header.pop("hash", None)
    return arrays, header


def _parse(path: Path, content: bytes, span: Span, mend: str) -> tuple[dict[str, NDArray[Any]], Any]:
    """Arrays, and the header or None; the library's parser checks bounds and depth by itself."""
    from safetensors.numpy import load

    try:
        arrays = dict(load(content))
        text = parse_json(content[slice(*span)], path).get("__metadata__", {}).get(_HEADER, "null")
    except Exception as error:  # whatever the parser makes of bytes that are no such file
        raise InputError(f"{path}: is damaged or no safetensors file ({error}). {mend}") from error
    return arrays, parse_json(text, path, allow_nan=True)


def _header_span(content: bytes) -> Span:
    return 8, min(8 + int.from_bytes(content[:8], "little"), len(content))
