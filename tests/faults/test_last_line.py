"""What main makes of errors that no command foresaw: one line, and the exit code that says whose fault it is."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jobs import demur

import demur.recording as demur_recording
from demur import Anchors
from demur.cli.group import INTERRUPTED


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (OSError(errno.EIO, "Input/output error", "a\nb\x1b[31m"), 2, "Input/output error"),
        (OSError("no number"), 2, "no number"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "x"), 2, "Too many open files"),
        (MemoryError(), 1, "out of memory"),
        (RecursionError("maximum recursion depth exceeded"), 1, "nested too deeply"),
        (KeyboardInterrupt(), INTERRUPTED, "the same command goes on"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_nobody_foresaw_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, says: str
) -> None:
    def read(path: Path) -> None:
        raise error

    monkeypatch.setattr(demur_recording, "read_signal", read)
    out = tmp_path / "g.safetensors"
    ran = demur("guard", "fit", tmp_path / "a", "--calibration", tmp_path / "b", "--out", out)
    assert (ran.code, ran.is_one_line) == (code, True), ran.stderr
    assert says in ran.stderr
    assert not out.exists()


def test_few_open_files_are_enough_or_one_line(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0).standard_normal((2, 4, 1, 8)).astype(np.float32)
    Anchors(drawn[0], drawn[1], (2,)).save(tmp_path / "a.safetensors")
    script = 'ulimit -n 32; exec "$0" -m demur signal nothing --anchors a.safetensors'
    ran = subprocess.run(
        ["bash", "-c", script, sys.executable], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert ran.returncode == 2, ran.stderr
    assert ran.stderr.count("\n") == 1
    assert "nothing: " in ran.stderr
