"""Several files replaced at once: whatever moment a kill picks, a reader finds the old ones or the new ones."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from demur.errors import InputError
from demur.files import staging
from demur.files.staging import found, settle, switched
from demur.files.writing import write_whole

NAMES = ("a", "b", "folder/c", "last")


def write(folder: Path, text: str) -> None:
    with switched(folder, "last") as new:
        for name in NAMES:
            write_whole(new / name, f"{text} {name}")


def seen(folder: Path) -> set[str]:
    return {found(folder, name).read_text().split()[0] for name in NAMES}


def die_at(count: int, do: Callable[[], object]) -> bool:
    """Whether a child that is killed before its file operation number `count` was killed."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1] != 0
    left = count
    for owner, name in ((os, "open"), (os, "replace"), (os, "rename"), (os, "mkdir"), (os, "rmdir"), (os, "unlink")):
        inner = getattr(owner, name)

        def counted(*args: object, inner: Callable[..., object] = inner, **options: object) -> object:
            nonlocal left
            left -= 1
            if left < 0:
                os._exit(9)
            return inner(*args, **options)

        setattr(owner, name, counted)
    do()
    os._exit(0)


def test_a_kill_leaves_the_old_files_or_the_new_ones(tmp_path: Path) -> None:
    outcomes = []
    for count in range(200):
        folder = tmp_path / str(count)
        write(folder, "old")
        (folder / "mine").write_text("foreign")
        killed = die_at(count, lambda folder=folder: write(folder, "new"))  # type: ignore[misc]
        outcomes.append(seen(folder))
        assert outcomes[-1] in ({"old"}, {"new"})
        write(folder, "newest")
        assert seen(folder) == {"newest"}
        assert sorted(path.name for path in folder.iterdir()) == ["a", "b", "folder", "last", "mine"]
        if not killed:
            break
    assert not killed and {"old"} in outcomes and outcomes.count({"new"}) > 3


def test_an_error_within_leaves_the_old_files(tmp_path: Path) -> None:
    write(tmp_path, "old")
    with pytest.raises(InputError, match="no good"), switched(tmp_path, "last") as new:
        write_whole(new / "a", "new")
        raise InputError("no good")
    assert seen(tmp_path) == {"old"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "folder", "last"]


def test_links_and_permissions_stay(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("old")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").symlink_to(tmp_path / "elsewhere")
    (folder / "b").write_text("old")
    (folder / "b").chmod(0o600)
    write(folder, "new")
    assert (folder / "a").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "new a"
    assert (folder / "b").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", ["a", "folder"])
def test_what_is_of_another_kind_is_not_replaced(tmp_path: Path, name: str) -> None:
    if name == "a":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"{name}: is no (file|folder) and is not replaced"):
        write(tmp_path, "new")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_link_of_the_reserved_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a").write_text("mine")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / staging.READY).symlink_to(tmp_path / "other")
    settle(folder, "last")
    staging.discard(folder / staging.READY)
    assert (tmp_path / "other" / "a").read_text() == "mine"
