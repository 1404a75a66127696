"""`read_prompts` and `as_prompts`: from whatever holds prompts to a checked list of them.

In: a path, the name of a bundled or Hub set, or a table in memory. Out: `Prompt`s. A thing is taken as what it is or
refused; it is never walked over as if it were a list of prompts when it is something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from demur.bundled import bundled_prompts, is_bundled
from demur.errors import InputError
from demur.prompts.files import file_rows, frame_rows
from demur.prompts.labels import label_of_set
from demur.prompts.options import ReadOptions
from demur.prompts.prompt import INPUTS, Prompt
from demur.prompts.rows import checked_rows

Rows = Iterator[tuple[str, Any]]


def read_prompts(
    path: str | Path | Any,
    *,
    limit: int | None = None,
    columns: Mapping[str, str | None] | None = None,
    labels: Mapping[str, Any] | None = None,
    encoding: str = "utf-8",
) -> list[Prompt]:
    """Read a prompt set: a ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet`` file, or ``hub:OWNER/NAME[:SPLIT]``.

    What is in memory already, as rows, texts or a DataFrame, is checked in the same way.

    "demur/toy/SET" is a bundled set, such as "demur/toy/test_harmful"; "demur/toy" is all of them together.

    Rows carry `id`, `prompt`, `label`, `attack`, `goal`, `category`, `prefill`, `infill`, or in place of `prompt`
    a conversation in `messages` or `token_ids`. Case and blanks around a column's name do not matter; other columns
    are ignored, and a row without `id` is named after its place in the file. A file named as a set of a study
    ("test_harmful") gives its rows the label that the name says.

    limit : read the first `limit` rows only.
    columns : the file's column for a field, such as ``{"prompt": "goal"}``; None reads the field as missing.
    labels : the file's value, or values, for "harmless" and "harmful", such as ``{"harmful": "1"}``.
    encoding : of a text file.
    Raises `InputError` naming the file and row for a missing or empty file, a malformed row, an empty
    prompt or an id that occurs twice.
    """
    in_memory = not isinstance(path, str | Path)
    name = "prompts" if in_memory else str(path)
    options = ReadOptions(columns or {}, labels or {}, encoding)
    if in_memory:
        rows = _rows_of(path)
    elif name.startswith("hub:"):
        repository, _, split = name.removeprefix("hub:").partition(":")
        rows = hub_rows(name, repository, split=split or "train")
    else:
        files = bundled_prompts(name) if is_bundled(name) else [Path(path)]
        rows = chain.from_iterable(file_rows(file, encoding) for file in files)
    prompts = list(checked_rows(name, rows, limit, options, label_of_set(Path(name).stem)))
    if not prompts:
        raise InputError(f"{name}: holds no prompts; expected one row a prompt with at least the field 'prompt'")
    return prompts


def as_prompts(prompts: Any) -> list[Prompt]:
    """Whatever a caller may pass as prompts as checked `Prompt`s.

    A path; a `Prompt` or a row; a dict of columns; a DataFrame or data set; a list of texts, rows or `Prompt`s.
    """
    if isinstance(prompts, str | Path):
        return read_prompts(prompts)
    checked = list(checked_rows("prompts", _rows_of(prompts), None))
    if not checked:
        raise InputError("prompts: the list is empty; give at least one prompt")
    return checked


def hub_rows(name: str, *arguments: str, **options: Any) -> Rows:
    """Pairs of a place and the raw row of a Hub data set, asked for with `arguments` and `options` of `load_dataset`.

    name : what messages call it.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise InputError("hub:… prompt sets need the package datasets: pip install 'demur[hub]'") from error
    try:
        rows = load_dataset(*arguments, **options)
    except Exception as error:
        raise InputError(f"{name}: the data set cannot be loaded ({error})") from error
    for number, row in enumerate(rows, start=1):
        yield f"row {number}", row


def _rows_of(given: Any) -> Rows:
    """Pairs of a place and a row; tables of pandas, polars, pyarrow and datasets by rows, never by columns."""
    if isinstance(given, Prompt):
        return iter([("row 1", given)])
    if isinstance(given, Mapping):
        return _of_mapping(given)
    if hasattr(given, "iterrows"):
        return frame_rows(given)
    if hasattr(given, "to_frame") and hasattr(given, "index"):  # a Series: one row of a table, or a column of texts
        named = any(isinstance(label, str) for label in given.index)
        given = [given.to_dict()] if named else given.tolist()
    for to_rows in ("to_dicts", "to_pylist"):
        if hasattr(given, to_rows):
            given = getattr(given, to_rows)()
    if not isinstance(given, Iterable) or isinstance(given, bytes | bytearray):
        raise InputError(
            f"prompts: is of the type {type(given).__name__}; give a path, a list of texts or rows, or a DataFrame"
        )
    return ((str(place), _row(one)) for place, one in enumerate(given))


def _row(prompt: Any) -> Any:
    return {"prompt": prompt} if isinstance(prompt, str) else prompt


def _of_mapping(given: Mapping[Any, Any]) -> Rows:
    """One row, or the rows of a dict of columns, told by what stands where a prompt is expected."""
    values = [value for name, value in given.items() if str(name).strip().casefold() in INPUTS]
    splits = [str(name) for name, value in given.items() if hasattr(value, "iterrows") or hasattr(value, "features")]
    if splits:
        raise InputError(f"prompts: holds the parts {', '.join(splits)}; give one of them")
    if not any(map(_is_column, values)):
        return iter([("row 1", given)])
    columns = {name: list(value) if _is_list(value) else value for name, value in given.items()}
    lengths = {str(name): len(value) if isinstance(value, list) else None for name, value in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"prompts: its columns are of different lengths, {lengths}; give one value a prompt in each")
    rows = zip(*columns.values(), strict=True)
    return ((f"row {number}", dict(zip(columns, row, strict=True))) for number, row in enumerate(rows, start=1))


def _is_list(value: Any) -> bool:
    return (isinstance(value, Sequence) and not isinstance(value, str | bytes)) or hasattr(value, "tolist")


def _is_column(value: Any) -> bool:
    """Whether a value holds one prompt each, and is not itself the token ids or messages of one."""
    first = next(iter(value), None) if _is_list(value) else None
    return isinstance(first, str) or _is_list(first)
