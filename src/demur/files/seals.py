"""Seals: a hash of a whole file, kept in the file itself, so that what is read is what was written.

In: the bytes of a file in which `BLANK` stands once, where the hash is to go. Out: the same bytes with the hash of
all others in its place, and a check of that on reading. Files of version 0.1 have no seal: they are refused, and read
where the caller allows it. A seal shows damage and mixtures; it is no signature.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Literal

from demur.errors import InputError

BLANK = "demur-seal:" + "0" * 64
"""The place of a hash before it is known."""

_SEALS = {
    "json": re.compile(rb'"hash": "demur-seal:([0-9a-f]{64})"'),
    "safetensors": re.compile(rb'\\"hash\\": \\"demur-seal:([0-9a-f]{64})\\"'),  # JSON within JSON
    "parquet": re.compile(rb"demur\.hash\x18\x4bdemur-seal:([0-9a-f]{64})"),  # Thrift: a string of 75 bytes
}
"""The first match counts; texts cannot look like one, for JSON escapes quotes, or the caller puts the hash in front."""

_ALLOWED: ContextVar[bool] = ContextVar("allow_unverified", default=False)
Kind = Literal["json", "safetensors", "parquet"]
Span = tuple[int, int]


class UnverifiedWarning(UserWarning):
    """A file without a hash was read, because the caller allows that."""


@contextmanager
def allow_unverified(allowed: bool = True) -> Iterator[None]:
    """Within the block, files without a hash (those of version 0.1) are read, with an `UnverifiedWarning`.

    allowed : False leaves things as they are around the block.
    """
    token = _ALLOWED.set(allowed or _ALLOWED.get())
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def set_allow_unverified(allowed: bool) -> None:
    """As `allow_unverified`, for the rest of the block around; the command line's option."""
    _ALLOWED.set(allowed)


def sealed(content: bytes, kind: Kind, span: Span | None = None) -> bytes:
    """The bytes with their hash in the place of `BLANK`.

    kind : of the file. span : start and end of where the hash is looked for; by default everywhere.
    """
    found = _find(content, kind, span)
    if found is None or found.group(1) != b"0" * 64:
        raise ValueError("the content has no place for its seal")
    start, end = found.span(1)
    whole = memoryview(content)  # whose slices are no copies: contents can be large
    return b"".join([whole[:start], _digest(content, found).encode(), whole[end:]])


def seal_of(content: bytes, kind: Kind, span: Span | None = None) -> str | None:
    """The hash that the bytes carry, whether or not it is right; None where they carry none."""
    found = _find(content, kind, span)
    return None if found is None else found.group(1).decode()


def require_sealed(path: Path, content: bytes, kind: Kind, span: Span | None = None) -> str:
    """The hash of a file's bytes, once they are known to be what was written; "" for an old file that is allowed.

    Raises `InputError` where the hash is wrong, or missing and not allowed to be.
    """
    found = _find(content, kind, span)
    if found is None:
        require_allowed(path, content)
        return ""
    stored = found.group(1).decode()
    if stored != _digest(content, found):
        raise InputError(f"{path}: is damaged (its content is not what its hash says); make it again")
    return stored


def require_allowed(path: Path, content: bytes = b"") -> None:
    """Warn of a file without a hash where that is allowed; else refuse it, and one that had a hash in any case."""
    if b"demur-seal:" in content:
        raise InputError(f"{path}: is damaged (its hash cannot be found where it belongs); make it again")
    if not _ALLOWED.get():
        raise InputError(
            f"{path}: carries no hash, as files of demur 0.1 and files changed by other programs do, so damage could "
            f"not be seen; make it again, or read it with --allow-unverified (allow_unverified=True)"
        )
    warnings.warn(f"{path}: carries no hash and is read unverified", UnverifiedWarning, stacklevel=2)


def hash_of(content: bytes) -> str:
    """The hash used throughout: BLAKE2b of 32 bytes, in hex."""
    return hashlib.blake2b(content, digest_size=32).hexdigest()


def _find(content: bytes, kind: Kind, span: Span | None) -> re.Match[bytes] | None:
    return _SEALS[kind].search(content, *(span or ()))


def _digest(content: bytes, found: re.Match[bytes]) -> str:
    start, end = found.span(1)
    digest = hashlib.blake2b(memoryview(content)[:start], digest_size=32)
    digest.update(b"0" * 64)
    digest.update(memoryview(content)[end:])
    return digest.hexdigest()
