"""Verdicts on disk, so that nothing is asked twice.

In: verdicts, True or False, by the hash of what was judged. Out: the same, after a kill too: a JSONL file that is only
ever appended to, in which a line torn by a kill is passed over. It holds hashes and verdicts, never a text; a hash in
each line shows a verdict that was changed.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.files.seals import hash_of, require_allowed
from demur.files.writing import append

_START = '{"key": "'


class VerdictCache:
    """Verdicts by key, kept in the file `path` or, where that is None, in memory only."""

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = Path(path) if path is not None else None
        self.verdicts: dict[str, bool] = {}
        self.torn = False  # whether the file ends within a line
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def add(self, verdicts: Mapping[str, bool]) -> None:
        """Keep verdicts; they are on the disk when this returns, where not even a power cut loses them."""
        self.verdicts |= verdicts
        if self.path is None or not verdicts:
            return
        lines = "".join(_line(key, verdict) + "\n" for key, verdict in verdicts.items())
        try:
            append(self.path, "\n" * self.torn + lines)
            self.torn = False
        except OSError as error:
            self.torn = True  # part of a line may be there
            raise InputError(f"{self.path}: cannot be written ({error.strerror}); give another cache file") from error

    def _read(self, path: Path) -> None:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror}); give another cache file") from error
        self.torn = bool(text) and not text.endswith("\n")
        strange, unverified = [], False
        for number, line in enumerate(text.split("\n"), start=1):
            row = _parsed(line)
            if isinstance(row, dict) and isinstance(row.get("key"), str) and "harmful" in row:
                if isinstance(row["harmful"], bool) and row.get("hash") in (None, _hash(row["key"], row["harmful"])):
                    unverified |= row.get("hash") is None
                    self.verdicts[row["key"]] = row["harmful"]
                elif row["harmful"] is not None:  # earlier versions kept null for a malformed verdict
                    strange.append(number)
            elif not (line.startswith(_START) or _START.startswith(line)):  # those are torn by a kill: asked again
                raise InputError(f"{path}, line {number}: holds no verdict; give the cache of a judge, or a new file")
        if unverified:
            require_allowed(path)
        if strange:
            warnings.warn(
                f"{path}: {len(strange)} of its lines, the first line {strange[0]}, say neither true nor false, or "
                f"are damaged; those verdicts are asked for again",
                UserWarning,
                stacklevel=3,
            )


def _line(key: str, verdict: bool) -> str:
    return json.dumps({"key": key, "harmful": verdict, "hash": _hash(key, verdict)})


def _hash(key: str, verdict: bool) -> str:
    return hash_of(f"{key} {verdict}".encode("utf-8", "surrogatepass"))[:16]


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
