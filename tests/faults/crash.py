"""A crash at any file operation: a child process that dies before it, after it, or with the file half written.

In: what to do, and the number of the operation. Out: whether the child died there. Operations are those of `os` that
change a folder or a file; pathlib, shutil and demur all go through them.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

OPERATIONS = ("open", "fsync", "replace", "rename", "mkdir", "rmdir", "unlink", "chmod", "fchmod")
Moment = Literal["before", "after", "half"]
MOMENTS: tuple[Moment, ...] = ("before", "after", "half")
DIED = 9


def changes(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a call changes anything: opening counts where it writes."""
    return name != "open" or (len(args) > 1 and bool(args[1] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR)))


def dies_at(place: int, moment: Moment, do: Callable[[], object]) -> bool:
    """Run `do` in a child that dies at operation number `place`; False where it ended by itself, without an error."""
    pid = os.fork()
    if pid:
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, DIED), f"the child failed at operation {place} ({moment}): {code}"
        return code == DIED
    try:
        # torch makes its pool anew in a child when it is first asked for, and fails where two threads ask at once.
        torch.set_num_threads(torch.get_num_threads())
        _arm(place, moment)
        do()
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def operations_of(do: Callable[[], object]) -> int:
    """Run `do`, and count its operations."""
    count = 0

    def counting(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal count
            count += changes(name, args)
            return inner(*args, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in OPERATIONS:
            patch.setattr(os, name, counting(name, getattr(os, name)))
        do()
    return count


def every_crash(tmp_path: Path, prepare: Callable[[Path], object], run: Callable[[Path], object],
                check: Callable[[Path], object], step: int) -> int:  # fmt: skip
    """Kill `run` at each operation in turn, or at each `step`-th, and `check` what follows; the number of kills."""
    kills = 0
    for moment in MOMENTS:
        place = kills % step
        while True:
            folder = tmp_path / f"{moment}-{place}"
            prepare(folder)
            if not dies_at(place, moment, lambda folder=folder: run(folder)):  # type: ignore[misc]
                break
            check(folder)
            kills, place = kills + 1, place + step
    return kills


def _arm(place: int, moment: Moment) -> None:
    left = place

    def armed(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal left
            if not changes(name, args):
                return inner(*args, **options)
            left -= 1
            if left >= 0:
                return inner(*args, **options)
            if moment == "half" and name == "fsync" and stat.S_ISREG(os.fstat(args[0]).st_mode):
                os.ftruncate(args[0], os.fstat(args[0]).st_size // 2)
            if moment == "after":
                inner(*args, **options)
            os._exit(DIED)

        return call

    for name in OPERATIONS:
        setattr(os, name, armed(name, getattr(os, name)))
