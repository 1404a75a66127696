"""Writing whole or not at all, and JSON that may be damaged."""

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from demur.errors import InputError
from demur.files import manifests, seals, tables
from demur.files import writing as files
from demur.files.writing import parse_json, read_json, write_whole


def test_a_file_is_replaced_whole_and_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.txt"
    write_whole(path, "one")
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~_umask()
    path.chmod(0o600)
    write_whole(path, b"two")
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


def _umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_what_is_no_regular_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "loop", "folder"):
        with pytest.raises(InputError, match=f"{name}: (is |cannot)"):
            write_whole(tmp_path / name, "x")
    with pytest.raises(InputError, match="/dev/null: is a device"):
        write_whole("/dev/null", "x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "loop", "pipe"]


@pytest.mark.parametrize("name", ["y" * 300, "file/x", "file/deeper/x"])
def test_a_name_that_cannot_be_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot be written"):
        write_whole(tmp_path / name, "x")


def test_a_name_of_the_longest_length_can_be_written(tmp_path: Path) -> None:
    write_whole(tmp_path / ("y" * 255), "x")


@pytest.mark.parametrize("operation", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EMFILE, errno.EACCES])
def test_what_the_disk_refuses_is_one_line_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str, code: int
) -> None:
    path = tmp_path / "x"
    write_whole(path, "old")

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path if operation == "replace" else os, operation, fail)
    with pytest.raises(InputError, match=f"{path}: "):
        write_whole(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_a_dead_process_go_and_all_else_stays(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    host = files._HOST
    (tmp_path / f".demur-{pid}-{host}-00000000.tmp").write_text("torn")
    (tmp_path / f".demur-{pid}-{host}-00000001.tmp").mkdir()
    (tmp_path / f".demur-{os.getpid()}-{host}-00000000.tmp").write_text("of this process, before a restart")
    kept = [".x.tmp", "x.part", ".demur-1-x.tmp", f".demur-{os.getppid()}-{host}-00000000.tmp"]
    kept += [f".demur-{pid}-{'0' * 8}-00000000.tmp"]
    for name in kept:
        (tmp_path / name).write_text("foreign, or in use")
    (tmp_path / f".demur-{pid}-{host}-00000002.tmp").symlink_to(tmp_path / "x.part")
    write_whole(tmp_path / "x", "new")
    assert {path.name for path in tmp_path.iterdir()} == {*kept, "x", f".demur-{pid}-{host}-00000002.tmp"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[" * 200 + "]" * 200, "nested more than"),
        ("9" * 5000, "an integer of 5000 digits"),
        ("[NaN]", "NaN is no finite number"),
        ("[1e999]", "1e999 is no finite number"),
        ("-Infinity", "no finite number"),
        (b'"\xff"', "codec can't decode"),
        ('"\\ud800"', "surrogates not allowed"),
        ('{"a": 1', "Expecting"),
        ("", "Expecting value"),
    ],
)
def test_damaged_json_is_one_line_that_names_the_file(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(InputError, match=f"x.json: is damaged or no valid JSON .*{said}"):
        parse_json(text, tmp_path / "x.json")


def test_json_that_is_sound_is_read(tmp_path: Path) -> None:
    value = {"a": [1, -2.5, None, True, "ü\u2028"], "b": {"c": 2**63}}
    (tmp_path / "x.json").write_text(json.dumps(value))
    assert read_json(tmp_path / "x.json") == value
    assert parse_json("[NaN]", "x", allow_nan=True)[0] != 0


def test_json_beyond_the_limit_of_size_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MOST_BYTES_OF_JSON", 10)
    with pytest.raises(InputError, match="x: has 11 bytes of JSON; at most 10"):
        parse_json("[1, 2, 3, 4]"[:11], "x")


def test_reading_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        read_json(tmp_path / "none")
    with pytest.raises(InputError, match="is no file"):
        read_json(tmp_path)
    with pytest.raises(InputError, match="is no file"):
        read_json(Path("/dev/zero"))


def test_text_that_looks_like_a_seal_does_not_pass_for_one(tmp_path: Path) -> None:
    fake = f'"hash": "{seals.BLANK}"'
    manifests.write_manifest(tmp_path / "x.json", {"hash of": fake, "a": {"hash": seals.BLANK}})
    assert manifests.read_manifest(tmp_path / "x.json") == {"hash of": fake, "a": {"hash": seals.BLANK}}
    with pytest.raises(ValueError, match="no place"):
        seals.sealed(b"nothing", "json")


def test_every_flipped_bit_of_a_manifest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    manifests.write_manifest(path, {"a": [1, 2.5, None], "nan": float("nan")})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 7]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"x\.json: "), seals.allow_unverified():
            manifests.read_manifest(path)


@pytest.mark.parametrize("text", ["[]", "{", ""])
def test_what_is_no_manifest_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json: "):
        manifests.read_manifest(tmp_path / "x.json")


def test_a_name_that_is_no_text_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"x\.json: cannot be written"):
        manifests.write_manifest(tmp_path / "x.json", {"model": "\ud800"})
    assert not list(tmp_path.iterdir())


HOSTILE = seals.BLANK
FRAME = pd.DataFrame({"a": [HOSTILE, None], "b": pd.array([True, None], dtype="boolean"), HOSTILE: [0.5, 2.0]})


def test_a_table_comes_back_with_its_marks(tmp_path: Path) -> None:
    made = tables.write_table(tmp_path / "x.parquet", FRAME, {"of": HOSTILE})
    stored = tables.read_table(tmp_path / "x.parquet", ["a"], expected=made)
    pd.testing.assert_frame_equal(stored.table, FRAME)
    assert stored.marks["of"] == HOSTILE
    assert stored.hash == made
    with pytest.raises(InputError, match="lacks the column 'c'"):
        tables.read_table(tmp_path / "x.parquet", ["a", "c"])
    with pytest.raises(InputError, match="is not the file that its manifest lists"):
        tables.read_table(tmp_path / "x.parquet", expected="0" * 64)


def test_every_flipped_bit_and_every_cut_of_a_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    tables.write_table(path, FRAME)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        flipped = whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :]
        for content in (flipped, whole[:place]):
            path.write_bytes(content)
            with pytest.raises(InputError, match=r"x\.parquet: "), seals.allow_unverified():
                tables.read_table(path)


def test_a_table_without_a_hash_is_read_only_where_that_is_allowed(tmp_path: Path) -> None:
    plain = pd.DataFrame({"a": ["x", None]})
    plain.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(InputError, match="carries no hash"):
        tables.read_table(tmp_path / "x.parquet")
    with pytest.warns(seals.UnverifiedWarning), seals.allow_unverified():
        pd.testing.assert_frame_equal(tables.read_table(tmp_path / "x.parquet").table, plain)
    (tmp_path / "x.parquet").write_bytes(b"PAR1" * 9)
    with pytest.raises(InputError, match="no Parquet file"), seals.allow_unverified():
        tables.read_table(tmp_path / "x.parquet")
