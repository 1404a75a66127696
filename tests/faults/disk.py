"""A disk that fails: from some file operation on, or at that one only, the operating system refuses.

In: the number of the operation and the fault. Out: a context in which it happens. Operations are those that
`crash` counts, and writing to a file that demur opened, of which half gets through.
"""

from __future__ import annotations

import errno
import io
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from crash import OPERATIONS, changes

GROWING = ("open", "write", "fsync", "mkdir")
"""Operations that need space."""


@dataclass(frozen=True)
class Fault:
    """What the system says, to which operations, and whether it goes on saying so."""

    code: int
    operations: tuple[str, ...]
    lasts: bool

    def __str__(self) -> str:
        return f"{errno.errorcode[self.code]}-{'lasting' if self.lasts else 'once'}"


EVERY = (*OPERATIONS, "write")
FAULTS = [
    Fault(errno.ENOSPC, GROWING, lasts=True),
    Fault(errno.EIO, EVERY, lasts=False),
    Fault(errno.EIO, EVERY, lasts=True),
    Fault(errno.EROFS, EVERY, lasts=True),
]


@contextmanager
def failing(place: int, fault: Fault) -> Iterator[list[str]]:
    """Fail at operation number `place`; the list holds the names of the operations that failed."""
    left, struck = place, []

    def strikes(name: str) -> bool:
        nonlocal left
        if name not in fault.operations:
            return False
        left -= 1
        if left >= 0 or (struck and not fault.lasts):
            return False
        struck.append(name)
        return True

    def refusing(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if changes(name, args) and strikes(name):
                raise OSError(fault.code, os.strerror(fault.code), None if name == "fsync" else args[0])
            return inner(*args, **options)

        return call

    class File(io.FileIO):
        def write(self, data: Any) -> int:
            if strikes("write"):
                super().write(bytes(data)[: len(data) // 2])
                raise OSError(fault.code, os.strerror(fault.code))
            return super().write(data)

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, refusing(name, getattr(os, name)))
        patch.setattr(os, "fdopen", lambda descriptor, mode: io.BufferedWriter(File(descriptor, mode)))
        yield struck


@contextmanager
def largest(size: int) -> Iterator[None]:
    """Within the block the system lets no file of this process grow beyond `size` bytes, as `ulimit -f` does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def few_files(more: int = 1) -> Iterator[None]:
    """Within the block this process may open only so many more files, as under `ulimit -n`."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = os.dup(0)
    os.close(probe)
    resource.setrlimit(resource.RLIMIT_NOFILE, (probe + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
