"""Writing files whole or not at all, and reading JSON that may be damaged.

In: a path and all its bytes. Out: the file, after a temporary beside it was flushed to the disk and renamed, so that
a kill or a power cut leaves the old file or the new one. Whatever the disk refuses is an `InputError` that names the
path. Several files that belong together are left to `staging`, hashes to `seals`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from demur.errors import InputError

MOST_BYTES_OF_JSON = 64 * 1024**2
DEEPEST_JSON = 64
LONGEST_INTEGER = 20

_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_TEMPORARY = re.compile(r"\.demur-(\d+)-([0-9a-f]{8})-[0-9a-f]{8}\.tmp")
_DAY = 86_400
_in_flight: set[str] = set()
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.EISDIR, errno.ENOSYS}


@contextmanager
def disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever the operating system refuses within the block into an `InputError` that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise InputError(
                f"{path}: the disk is full, no space left to write; what was there before is kept: "
                f"free some space and run the same command again"
            ) from error
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise InputError(f"{path}: too many open files; raise the limit (ulimit -n) and run it again") from error
        reason = error.strerror or str(error)
        raise InputError(f"{path}: cannot be written ({reason}); give a place that you can write to") from error


def write_whole(
    path: str | os.PathLike[str], content: bytes | str, *, parents: bool = True, sweep: bool = True
) -> None:
    """Write a file in one move, replacing a regular file there and keeping its permissions.

    A link is written through to its target. parents : make the folders above. sweep : remove what killed processes
    left beside it. Raises `InputError` for a folder, device or pipe at `path`, and for what the disk refuses.
    """
    data = content.encode() if isinstance(content, str) else content
    with disk_errors(path):
        target = Path(os.path.realpath(path))
        before = _existing(Path(path), target)
        if parents:
            make_folder(target.parent)
        if sweep:
            remove_leftovers(target.parent)
        with temporary_beside(target) as temporary:
            mode = 0o666 if before is None else 0o600
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                if before is not None:
                    _as_before(descriptor, before)
                os.fsync(descriptor)
            temporary.replace(target)
        sync_folder(target.parent)


def append(path: Path, text: str) -> None:
    """Add `text` to the end of a file, which is made where there is none, and flush it to the disk.

    Raises `OSError` where the disk refuses; part of the text may be in the file then.
    """
    make_folder(path.parent)
    is_new = not path.exists()
    with path.open("a", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        if path.is_file():  # a device has no disk below it
            os.fsync(file.fileno())
    if is_new:
        sync_folder(path.parent)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A name in the folder of `path` for a file or folder that is removed when the block ends, if it is there still."""
    name = f".demur-{os.getpid()}-{_HOST}-{secrets.token_hex(4)}.tmp"
    _in_flight.add(name)
    temporary = path.with_name(name)
    try:
        yield temporary
    finally:
        with suppress(OSError):
            _remove(temporary)
        _in_flight.discard(name)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporaries that killed processes left in a folder, and nothing else."""
    with suppress(FileNotFoundError):
        for path in sorted(folder.iterdir()):
            if is_leftover(path):
                with suppress(OSError):
                    _remove(path)


def is_leftover(path: Path) -> bool:
    """Whether this is a temporary of a process that is gone."""
    found = _TEMPORARY.fullmatch(path.name)
    if found is None or path.name in _in_flight or path.is_symlink():
        return False
    pid, host = int(found[1]), found[2]
    if host == _HOST and os.name == "posix":
        return pid == os.getpid() or not _is_alive(pid)
    with suppress(OSError):
        return time.time() - path.lstat().st_mtime > _DAY
    return False


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, each known to the disk before this returns."""
    missing = [one for one in (folder, *folder.parents) if not one.is_dir()]
    for one in reversed(missing):
        one.mkdir(exist_ok=True)
        sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename outlives a power cut; passed over where that cannot be done."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    except OSError as error:
        if error.errno in _NO_FOLDER_SYNC:
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def read_whole(path: Path) -> bytes:
    """All bytes of a regular file; `InputError` where there is none or it cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise InputError(f"{path}: is no file; give a regular file")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def parse_json(content: bytes | str, where: str | os.PathLike[str], *, allow_nan: bool = False) -> Any:
    """The value of a JSON text, within limits of size, depth and digits of an integer.

    where : what messages call it. Raises `InputError` for text that is no JSON or goes beyond a limit, and, unless
    `allow_nan`, for NaN and Infinity, which JSON does not have.
    """
    if len(content) > MOST_BYTES_OF_JSON:
        raise InputError(f"{where}: has {len(content):,} bytes of JSON; at most {MOST_BYTES_OF_JSON:,} are read")
    try:
        text = content.decode("utf-8-sig") if isinstance(content, bytes) else content
        value = json.loads(text, parse_int=_integer, **({} if allow_nan else _FINITE))
        _require_shallow(value)
        json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair cannot be written or printed
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(f"{where}: is damaged or no valid JSON ({reason})") from error
    return value


def read_json(path: Path, *, allow_nan: bool = False) -> Any:
    """The value of a JSON file; see `parse_json`."""
    return parse_json(read_whole(path), path, allow_nan=allow_nan)


def _integer(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


_FINITE: dict[str, Any] = {"parse_float": _finite, "parse_constant": _finite}


def _require_shallow(value: Any) -> None:
    level, depth = [value], 0
    while level:
        if depth > DEEPEST_JSON:
            raise ValueError(f"nested more than {DEEPEST_JSON} deep")
        inner = (one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list))
        level = [one for values in inner for one in values]
        depth += 1


def _existing(path: Path, target: Path) -> os.stat_result | None:
    """What is at the target now; refuses all but a regular file that may be written."""
    try:
        found = target.lstat()
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "a device, pipe or link"
        raise InputError(f"{path}: is {kind} and is not replaced; give the path of a file")
    if not os.access(target, os.W_OK):
        raise InputError(f"{path}: cannot be written (it is write-protected); give another file")
    return found


def _as_before(descriptor: int, before: os.stat_result) -> None:
    if os.name == "posix":
        with suppress(PermissionError):  # only root gives files away
            if (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, before.st_uid, before.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(before.st_mode))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
