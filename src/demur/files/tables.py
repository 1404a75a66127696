"""Tables on disk: Parquet files that carry a hash and a few marks.

In: a path, a table and named texts that belong to it. Out: the same, read back, once the hash has shown that they are
what was written; a damaged file never reaches the Parquet reader.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from demur.errors import InputError
from demur.files.seals import BLANK, Span, require_allowed, require_sealed, seal_of, sealed
from demur.files.writing import read_whole, write_whole

if TYPE_CHECKING:
    import pandas as pd

HASH = "demur.hash"


class Stored(NamedTuple):
    """A table that was read: its rows, its marks, and the hash of its file ("" where it carries none)."""

    table: pd.DataFrame
    marks: Mapping[str, str]
    hash: str


def write_table(path: Path, table: pd.DataFrame, marks: Mapping[str, str] | None = None, *, sweep: bool = True) -> str:
    """Write a table as Parquet, with `marks` and the hash of the file in its schema; returns the hash.

    sweep : as in `write_whole`.
    """
    content = parquet_bytes(table, marks or {})
    write_whole(path, content, sweep=sweep)
    return seal_of(content, "parquet", _footer(content)) or ""


def parquet_bytes(table: pd.DataFrame, marks: Mapping[str, str]) -> bytes:
    """The file of a table."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = pa.Table.from_pandas(table, preserve_index=False)
    rows = rows.replace_schema_metadata({**(rows.schema.metadata or {}), **marks, HASH: BLANK})
    out = pa.BufferOutputStream()
    pq.write_table(rows, out)
    content = out.getvalue().to_pybytes()
    return sealed(content, "parquet", _footer(content))


def read_table(path: Path, columns: Collection[str] = (), *, expected: str | None = None) -> Stored:
    """A table that `write_table` wrote.

    columns : must be there. expected : the hash that a manifest says the file has.
    Raises `InputError` for a file that is missing, damaged, or another than the manifest's, and for one without a hash
    where that is not allowed.
    """
    content = read_whole(path)
    if not content.endswith(b"PAR1"):
        raise InputError(f"{path}: is damaged or no Parquet file (its end is missing); make it again")
    footer = _footer(content)
    stored = "" if seal_of(content, "parquet", footer) is None else require_sealed(path, content, "parquet", footer)
    if expected is not None and stored != expected:
        raise InputError(f"{path}: is not the file that its manifest lists (of another run?); make them again")
    table, marks = _parse(path, content)
    if not stored:
        if HASH in marks:
            raise InputError(f"{path}: is damaged (its hash cannot be read); make it again")
        require_allowed(path, content)
    if missing := [name for name in columns if name not in table.columns]:
        raise InputError(f"{path}: lacks the column {missing[0]!r}; give a file that demur wrote")
    return Stored(table, marks, stored)


def _parse(path: Path, content: bytes) -> tuple[pd.DataFrame, dict[str, str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        marks: dict[Any, Any] = file.metadata.metadata or {}
        return file.read().to_pandas(), {name.decode(): text.decode() for name, text in marks.items()}
    except Exception as error:  # whatever the reader makes of bytes that are no such file
        raise InputError(f"{path}: is damaged or no Parquet file ({error}); make it again") from error


def _footer(content: bytes) -> Span:
    """Where the schema of a Parquet file stands."""
    end = max(len(content) - 8, 0)
    return max(end - int.from_bytes(content[-8:-4], "little"), 0), end
