"""The log of verdicts: a JSON line for each generation, whole or not there at all.

In: a job and what became of it. Out: lines at the end of a file, each written by one call, so that a kill leaves whole
lines only. No text is written unless the operator asks; prompts are named by a hash of their messages.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.files.writing import disk_errors

Turns = Sequence[Mapping[str, str]]


def prompt_key(turns: Turns) -> str:
    """sha256 over the messages of a prompt: roles and contents."""
    plain = [[turn["role"], turn["content"]] for turn in turns]
    return hashlib.sha256(json.dumps(plain, ensure_ascii=False).encode()).hexdigest()


class VerdictLog:
    """Appends to one file, which several servers may share. with_text : whether prompts and answers are written."""

    def __init__(self, path: Path, *, with_text: bool = False) -> None:
        self.path, self.with_text = path, with_text
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._mend()

    def write(self, entry: Mapping[str, Any], text: Mapping[str, str] | None = None) -> None:
        """Add one line. text : what is added only where text is wanted. Raises `OSError` where the disk refuses."""
        whole = {**entry, **(text or {})} if self.with_text else dict(entry)
        line = json.dumps(whole, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        if os.write(self._descriptor, line) != len(line):
            os.write(self._descriptor, b"\n")
            raise OSError(f"{self.path}: a line was written in part; is the disk full?")

    def close(self) -> None:
        os.close(self._descriptor)

    def _mend(self) -> None:
        """Begin on a new line where a full disk or a power cut left half a one."""
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    os.write(self._descriptor, b"\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The entries of a log, in order; half a line that a power cut left is passed over.

    Raises `InputError` where there is no such file or a line is no entry.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error}); give the log of a server") from error
    entries = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            entries.append({**entry, "line": number, "guards": list(entry["guards"])})
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if not line.startswith(b"{"):
                raise InputError(f"{path}, line {number}: is no entry of a log of verdicts ({error})") from error
    return entries
