"""Prompts and prompt sets.

In: a JSONL, CSV or Parquet file (or a Hub data set, with the `hub` extra). Out: a list of `Prompt`, and the
way back into a file. Every fault of a file is an `InputError` that names the file, the row and the mend.
Nothing here knows of tokenizers or chat formats; that is the model's business.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from demur.bundled import bundled_prompts, is_bundled
from demur.errors import InputError
from demur.infill import infill_parts

TEXT_FIELDS = ("prompt", "label", "attack", "goal", "category", "prefill", "infill")


@dataclass(frozen=True)
class Prompt:
    """One prompt: a user message, or ready token ids.

    id : unique within its set.
    prompt : the user message; None where `token_ids` is given.
    label : "harmless", "harmful" or None; attack : name of the attack that wrapped it, or None.
    goal : the request under the attack; category : the source's own; both may be None.
    prefill : text forced as the beginning of the response, or None.
    infill : template of the response, forced text with gaps: ``"Step 1: [[mask:8]] Step 2: [[mask:8]]"`` leaves
        8 positions free after each text; for diffusion models, in place of `prefill`.
    token_ids : the whole input, chat format included; used as it is.
    """

    id: str
    prompt: str | None = None
    label: str | None = None
    attack: str | None = None
    goal: str | None = None
    category: str | None = None
    prefill: str | None = None
    infill: str | None = None
    token_ids: tuple[int, ...] | None = None

    @property
    def group(self) -> str:
        """What results are grouped by: the attack's name where there is one, else the label."""
        return self.attack or self.label or "unlabelled"


def read_prompts(path: str | Path, *, limit: int | None = None) -> list[Prompt]:
    """Read a prompt set: a ``.jsonl``, ``.csv`` or ``.parquet`` file, or ``hub:OWNER/NAME[:SPLIT]``.

    "demur/toy/SET" is a bundled set, such as "demur/toy/test_harmful"; "demur/toy" is all of them together.

    Rows carry `id`, `prompt`, `label`, `attack`, `goal`, `category`, `prefill`, `infill`, or `token_ids` in
    place of `prompt`; other columns are ignored, and a row without `id` is named after its place in the file.

    limit : read the first `limit` rows only.
    Raises `InputError` naming the file and row for a missing or empty file, a malformed row, an empty
    prompt or an id that occurs twice.
    """
    name = str(path)
    if name.startswith("hub:"):
        repository, _, split = name.removeprefix("hub:").partition(":")
        rows = hub_rows(name, repository, split=split or "train")
    else:
        rows = chain.from_iterable(map(file_rows, bundled_prompts(name) if is_bundled(name) else [Path(path)]))
    prompts = list(checked_rows(name, rows, limit))
    if not prompts:
        raise InputError(f"{name}: holds no prompts; expected one row a prompt with at least the field 'prompt'")
    return prompts


def write_prompts(prompts: Iterable[Prompt], path: str | Path) -> None:
    """Write a prompt set to a ``.jsonl`` file that `read_prompts` reads back; fields that are None are left out."""
    path = Path(path)
    if path.suffix.lower() != ".jsonl":
        raise InputError(f"{path}: a prompt set is written as .jsonl; give a name that ends so")
    rows = ({name: value for name, value in asdict(prompt).items() if value is not None} for prompt in prompts)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give a place you can write to") from error


def as_prompts(prompts: Sequence[Prompt | str | Mapping[str, Any]] | str | Path) -> list[Prompt]:
    """Whatever a caller may pass as prompts (a path, strings, rows or `Prompt`s) as checked `Prompt`s."""
    if isinstance(prompts, str | Path):
        return read_prompts(prompts)
    rows = ((str(place), _as_row(prompt)) for place, prompt in enumerate(prompts))
    checked = list(checked_rows("prompts", rows, None))
    if not checked:
        raise InputError("prompts: the list is empty; give at least one prompt")
    return checked


def prompts_hash(prompts: Iterable[Prompt]) -> str:
    """sha256 over the content of the prompts in their order: what makes two prompt sets the same."""
    digest = hashlib.sha256()
    for prompt in prompts:
        content = asdict(prompt)
        if prompt.infill is None:
            del content["infill"]  # sets recorded before there were templates keep their hash
        digest.update(json.dumps(content, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _as_row(prompt: Prompt | str | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(prompt, Prompt):
        return asdict(prompt)
    return {"prompt": prompt} if isinstance(prompt, str) else prompt


def file_rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Pairs of a place ("line 3", "row 3") and the raw row."""
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path}: prompt file {kind}; give a .jsonl, .csv or .parquet file")
    suffix = path.suffix.lower()
    if suffix in {".jsonl", ".ndjson"}:
        yield from _jsonl_rows(path)
    elif suffix in {".csv", ".parquet"}:
        yield from _table_rows(path)
    else:
        raise InputError(f"{path}: unknown kind of prompt file {suffix!r}; give a .jsonl, .csv or .parquet file")


def _jsonl_rows(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"line {number}", _json_row(path, number, line)
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error


def _json_row(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {number}: is not valid JSON ({error.msg} at column {error.colno}); "
            "write one JSON object a line"
        ) from error


def _table_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pandas as pd

    try:
        if path.suffix.lower() == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])
        else:
            table = pd.read_parquet(path)
    except pd.errors.EmptyDataError:
        return
    except Exception as error:
        raise InputError(f"{path}: cannot be read as {path.suffix[1:]} ({error})") from error
    for number, row in enumerate(table.to_dict("records"), start=1):
        yield f"row {number}", row


def hub_rows(name: str, *arguments: str, **options: Any) -> Iterator[tuple[str, Any]]:
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


def checked_rows(source: str, rows: Iterable[tuple[str, Any]], limit: int | None) -> Iterator[Prompt]:
    """The prompt of each raw row, the first `limit` of them; rows come with the place that messages name."""
    seen: dict[str, str] = {}
    for number, (place, row) in enumerate(rows):
        if limit is not None and number >= limit:
            return
        prompt = _prompt(f"{source}, {place}", row, default_id=str(number))
        if prompt.id in seen:
            raise InputError(
                f"{source}, {place}: id {prompt.id!r} stands already at {seen[prompt.id]}; make ids unique"
            )
        seen[prompt.id] = place
        yield prompt


def _prompt(where: str, row: Any, default_id: str) -> Prompt:
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: is a {type(row).__name__}, not an object with the fields id, prompt, label, …")
    values = {name: None if _is_missing(value) else value for name, value in row.items()}
    identity = str(values["id"]) if values.get("id") is not None else default_id
    fields = {name: _text(where, name, values.get(name)) for name in TEXT_FIELDS}
    _check_infill(f"{where} (id {identity!r})", fields)
    token_ids = _token_ids(where, values.get("token_ids"))
    if token_ids is None and not (fields["prompt"] or "").strip():
        raise InputError(
            f"{where} (id {identity!r}): the prompt is empty; give a text in the field 'prompt' or ids in 'token_ids'"
        )
    return Prompt(id=identity, token_ids=token_ids, **fields)


def _check_infill(where: str, fields: Mapping[str, str | None]) -> None:
    if fields["infill"] is None:
        return
    if fields["prefill"] is not None:
        raise InputError(f"{where}: has both 'prefill' and 'infill'; give one, the beginning can stand in the template")
    try:
        infill_parts(fields["infill"])
    except InputError as error:
        raise InputError(f"{where}: field 'infill': {error}") from error


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(where: str, name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where}: field {name!r} is {value!r}, not text")
    return value


def _token_ids(where: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise InputError(f"{where}: field 'token_ids' is not a JSON list of whole numbers") from error
    try:
        ids = [int(number) for number in value]
        whole = all(number == original for number, original in zip(ids, value, strict=True))
    except (TypeError, ValueError):
        ids, whole = [], False
    if not ids or not whole or min(ids) < 0:
        raise InputError(f"{where}: field 'token_ids' must be a non-empty list of whole numbers from 0 up")
    return tuple(ids)
