"""Files of fitted things: whole or not there, never unpickled, errors that name the file."""

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import demur
from demur.errors import InputError
from demur.files.arrays import FORMAT_VERSION, read_arrays, write_arrays
from demur.files.seals import UnverifiedWarning

ARRAYS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.array([1.5, -0.0])}
HEADER = {"kind": "thing", "name": "é", "values": [1, None, {"x": 0.1}]}


def test_arrays_and_header_come_back_as_they_were(tmp_path: Path) -> None:
    write_arrays(tmp_path / "x.safetensors", {**ARRAYS, "t": ARRAYS["a"].T}, HEADER)
    arrays, header = read_arrays(tmp_path / "x.safetensors", "thing")
    for name, array in {**ARRAYS, "t": ARRAYS["a"].T}.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    assert header == {**HEADER, "format": FORMAT_VERSION, "demur": demur.__version__}


def test_nothing_but_the_file_is_left_in_the_folder(tmp_path: Path) -> None:
    for _ in range(2):
        write_arrays(tmp_path / "x.safetensors", ARRAYS, HEADER)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.safetensors: there is no such file"):
        read_arrays(tmp_path / "gone.safetensors", "thing")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=str(tmp_path)):
        read_arrays(tmp_path, "thing")


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\x80\x04\x95pickle"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"x\.safetensors: is damaged or no safetensors file"):
        read_arrays(path, "thing")


def test_a_file_cut_at_any_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_arrays(path, ARRAYS, HEADER)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"x\.safetensors"):
            read_arrays(path, "thing")


def test_safetensors_without_our_header_are_refused(tmp_path: Path) -> None:
    save_file(ARRAYS, tmp_path / "x.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="without a demur header"):
        read_arrays(tmp_path / "x.safetensors", "thing")


def test_a_file_of_another_kind_is_refused_naming_both(tmp_path: Path) -> None:
    write_arrays(tmp_path / "x.safetensors", ARRAYS, HEADER)
    with pytest.raises(InputError, match="holds 'thing'; expected 'anchors'"):
        read_arrays(tmp_path / "x.safetensors", "anchors")


def test_a_later_format_is_refused(tmp_path: Path) -> None:
    later = json.dumps({"kind": "thing", "format": FORMAT_VERSION + 1, "demur": "9.9"})
    save_file(ARRAYS, tmp_path / "x.safetensors", {"demur": later})
    with pytest.raises(InputError, match=r"written by demur 9\.9"):
        read_arrays(tmp_path / "x.safetensors", "thing")


@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "cannot be written")]
)
def test_a_failing_disk_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, message: str
) -> None:
    path = tmp_path / "x.safetensors"
    write_arrays(path, ARRAYS, HEADER)
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match=rf"x\.safetensors: {message}"):
        write_arrays(path, {"a": np.zeros(3)}, HEADER)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none/x\.safetensors: cannot be written"):
        write_arrays(tmp_path / "none" / "x.safetensors", ARRAYS, HEADER)


def test_every_flipped_bit_of_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_arrays(path, ARRAYS, {**HEADER, "name": "demur-seal:" + "0" * 64})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(InputError, match=r"x\.safetensors"):
            read_arrays(path, "thing", allow_unverified=True)


def test_a_file_without_a_hash_is_read_only_where_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(ARRAYS, path, {"demur": json.dumps({"kind": "thing", "format": 1, "demur": "0.1.0"})})
    with pytest.raises(InputError, match=r"carries no hash.*--allow-unverified"):
        read_arrays(path, "thing")
    with pytest.warns(UnverifiedWarning, match=r"x\.safetensors: carries no hash"):
        arrays, _ = read_arrays(path, "thing", allow_unverified=True)
    np.testing.assert_array_equal(arrays["a"], ARRAYS["a"])
