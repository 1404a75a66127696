"""One process at a time in a folder.

In: a folder. Out: a context in which no other process of demur works there. The lock is a file that stays; the system
drops it with the process, so a kill leaves none behind.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.files.writing import disk_errors, make_folder

LOCK = ".lock"
_TRIES = 5


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; another process that holds it is an `InputError`, and so is no lock at all."""
    from filelock import FileLock, Timeout

    with disk_errors(folder):
        make_folder(folder)
    lock = FileLock(folder / LOCK)
    try:
        _acquire(lock)
    except Timeout as error:
        raise InputError(
            f"{folder}: another process is recording into this folder; wait for it or give another folder"
        ) from error
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{folder}: cannot be written or locked ({reason}), as on some network disks; give another folder"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):  # the system drops it with the process
            lock.release()


def _acquire(lock: Any) -> None:
    for left in reversed(range(_TRIES)):
        try:
            lock.acquire(timeout=0)
        except InterruptedError:
            if not left:
                raise
        except OSError as error:
            if error.errno != errno.EINTR or not left:
                raise
        else:
            return
