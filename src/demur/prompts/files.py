"""Prompt files as raw rows.

In: a JSON Lines, CSV, TSV or Parquet file. Out: pairs of a place ("line 3", "row 3") and the row as the file has it.
What the columns mean is not asked here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.prompts.delimited import delimited_rows

Rows = Iterator[tuple[str, Any]]
ENDINGS = (".jsonl", ".csv", ".tsv", ".parquet")


def file_rows(path: Path, encoding: str = "utf-8") -> Rows:
    """Pairs of a place ("line 3", "row 3") and the raw row. encoding : of the text files."""
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path}: prompt file {kind}; give a {_KINDS} file, or texts as a list")
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        raise InputError(f"{path}: unknown kind of prompt file {suffix!r}; give a {_KINDS} file")
    try:
        yield from _READERS[suffix](path, encoding)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the file and your rights to it") from error


def read_text(path: Path, encoding: str) -> str:
    """The file as text; `InputError` with the mend where it is in another encoding."""
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{path}: is UTF-16 text; save it as UTF-8 (in Excel: CSV UTF-8)")
    try:
        text = content.decode("utf-8-sig" if encoding.lower().replace("_", "-") in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not {encoding.upper()} text (byte {error.start}); save it as UTF-8 (in Excel: CSV UTF-8), "
            f"or name its encoding: --encoding cp1252 (encoding='cp1252')"
        ) from error
    except LookupError as error:
        raise InputError(f"encoding {encoding!r} is unknown; give one such as utf-8 or cp1252") from error
    if "\0" in text:
        raise InputError(
            f"{path}: holds a NUL character at place {text.index(chr(0)) + 1}, so it is no text file or a damaged one; "
            f"save it as UTF-8 text"
        )
    return text


def _json_rows(path: Path, encoding: str) -> Rows:
    for number, line in enumerate(read_text(path, encoding).split("\n"), start=1):
        if line.strip():
            yield f"line {number}", _json_row(path, number, line)


def _json_row(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {number}: is not valid JSON ({error.msg} at column {error.colno}); "
            "write one JSON object a line"
        ) from error
    except RecursionError as error:
        raise InputError(
            f"{path}, line {number}: is nested too deeply to be a prompt; write one flat object"
        ) from error
    except ValueError as error:  # Python reads no integer above 4,300 digits
        raise InputError(f"{path}, line {number}: holds a number of more than 4,300 digits; correct it") from error


def _delimited(path: Path, encoding: str) -> Rows:
    return delimited_rows(str(path), read_text(path, encoding), tabs=path.suffix.lower() == ".tsv")


def _parquet_rows(path: Path, encoding: str) -> Rows:
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except Exception as error:  # a damaged file can fail anywhere in its reader
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as Parquet ({reason[:200]}); write it again") from error
    yield from frame_rows(table)


def frame_rows(table: Any) -> Rows:
    """Pairs of a place and the row of a pandas DataFrame; a named index counts as a column."""
    if any(name is not None for name in table.index.names):
        known = set(table.columns)
        table = table.reset_index(drop=not any(name not in known for name in table.index.names if name is not None))
    for number, row in enumerate(table.to_dict("records"), start=1):
        yield f"row {number}", row


_READERS: dict[str, Callable[[Path, str], Rows]] = {
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".csv": _delimited,
    ".tsv": _delimited,
    ".parquet": _parquet_rows,
}
_KINDS = ".jsonl, .csv, .tsv or .parquet"
