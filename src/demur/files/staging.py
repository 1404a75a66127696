"""Several files that belong together, replaced all at once.

In: a folder and new files for it. Out: the folder with the old files or with the new ones, wherever a kill falls: the
new ones are written into a folder inside, one rename makes them count, and only then do they move to their places.
Until the last of them has moved, readers find each where it is (`found`); the next writer moves what a kill left.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demur.errors import InputError
from demur.files.writing import disk_errors, make_folder, remove_leftovers, sync_folder, temporary_beside, write_whole

READY = ".demur-ready"
"""New files that count already, on their way to their places."""


@contextmanager
def switched(folder: Path, last: str) -> Iterator[Path]:
    """A folder whose files replace those of `folder` all at once when the block ends without an error.

    last : the manifest, which moves behind all others. Files of other names in `folder` stay.
    """
    with disk_errors(folder):
        make_folder(folder)
        remove_leftovers(folder)
        settle(folder, last)
        with temporary_beside(folder / last) as new:
            new.mkdir()
            yield new
            commit(new, folder)
        settle(folder, last)


def commit(new: Path, folder: Path) -> None:
    """Make the files of `new`, a folder inside `folder`, count: one rename."""
    require_replaceable(new, folder)
    sync_folder(new)
    new.rename(folder / READY)
    sync_folder(folder)


def settle(folder: Path, last: str) -> None:
    """Move the files that count to their places, `last` behind all others; nothing where there are none."""
    ready = folder / READY
    if not is_own_folder(ready):
        return
    for path in sorted(ready.iterdir(), key=lambda path: (path.name == last, path.name)):
        if path.name == last:
            sync_folder(folder)
        _move(path, folder / path.name)
    ready.rmdir()
    sync_folder(folder)


def found(folder: Path, name: str) -> Path:
    """Where the file `name` of a folder is now: in its place, or on its way there."""
    ready = folder / READY / name
    return ready if ready.exists() else folder / name


def is_own_folder(path: Path) -> bool:
    """Whether this is a folder, and no link to one."""
    return path.is_dir() and not path.is_symlink()


def discard(folder: Path) -> None:
    """Remove a folder of demur's own; links in it are removed, never followed."""
    if is_own_folder(folder):
        shutil.rmtree(folder)


def require_replaceable(new: Path, folder: Path) -> None:
    """Raise `InputError` where a file of `new` would take the place of what is no file, or a folder that of a file."""
    for path in sorted(new.iterdir()):
        place = folder / path.name
        if is_own_folder(path):
            if is_own_folder(place):
                require_replaceable(path, place)
            elif os.path.lexists(place):
                raise InputError(f"{place}: is no folder and is not replaced; move it away")
        elif place.exists() and not place.is_file():
            raise InputError(f"{place}: is no file and is not replaced; move it away")


def _move(source: Path, place: Path) -> None:
    if is_own_folder(source):
        if not os.path.lexists(place):
            source.rename(place)
            return
        for path in sorted(source.iterdir()):
            _move(path, place / path.name)
        sync_folder(place)
        source.rmdir()
    elif place.is_symlink():
        write_whole(place, source.read_bytes())
        source.unlink()
    else:
        if place.exists():
            source.chmod(stat.S_IMODE(place.stat().st_mode))
        source.replace(place)
