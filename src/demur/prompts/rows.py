"""From a raw row to a checked `Prompt`.

In: rows with the place that messages name. Out: prompts with unique ids, texts that can be encoded, and nothing that
a model would read otherwise than the file says.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from sys import intern
from typing import Any

from demur.errors import InputError
from demur.prompts.infill import infill_parts, looks_like_a_mask, plain_marks
from demur.prompts.labels import checked_label
from demur.prompts.messages import conversation
from demur.prompts.options import ReadOptions
from demur.prompts.prompt import TEXT_FIELDS, Prompt
from demur.prompts.values import checked_text, is_missing, shown

LARGEST_ID = 2**31 - 1
"""Token ids are kept as int32."""


OTHER_TURNS = ("turns", "history", "conversation", "conversations")
"""Fields in which other people's files keep the turns before a prompt; leaving them out would be another prompt."""


SHARED = ("label", "attack", "category")
"""Fields of which many rows have the same text, which is kept once."""


def checked_rows(
    source: str,
    rows: Iterable[tuple[str, Any]],
    limit: int | None,
    options: ReadOptions | None = None,
    label: str | None = None,
) -> Iterator[Prompt]:
    """The prompt of each raw row, the first `limit` of them; rows come with the place that messages name.

    A row that is a `Prompt` already is checked as any other, and given itself where that changes nothing.

    label : that all rows have by the name of their set, if any.
    """
    options = options or ReadOptions()
    seen: dict[str, str] = {}
    for number, (place, row) in enumerate(rows):
        if limit is not None and number >= limit:
            return
        given = row if isinstance(row, Prompt) else None
        raw = row if given is None else given.to_row()
        prompt = _prompt(f"{source}, {place}", raw, str(number), options, label)
        if prompt.id in seen:
            raise InputError(
                f"{source}, {place}: id {prompt.id!r} stands already at {seen[prompt.id]}; make ids unique"
            )
        seen[prompt.id] = place
        is_same = given is not None and given.token_ids is None and given == prompt  # 1.0 == 1, and is no token id
        yield given if given is not None and is_same else prompt


def _prompt(where: str, row: Any, default_id: str, options: ReadOptions, label: str | None) -> Prompt:
    if not isinstance(row, Mapping):
        raise InputError(f"{where}: is a {type(row).__name__}, not an object with the fields id, prompt, label, …")
    renamed = options.renamed(where, row)
    options.require_input(where, row, renamed)
    values = {name: None if is_missing(value) else value for name, value in renamed.items()}
    identity = _identity(where, values.get("id"), default_id)
    where = f"{where} (id {identity!r})"
    values["label"] = checked_label(where, values.get("label"), options, label)
    for name in OTHER_TURNS:
        if isinstance(row.get(name), list | tuple) and values.get("messages") is None:
            raise InputError(
                f"{where}: its turns stand in {name!r}, which is not read; give the conversation as 'messages'"
            )
    turns = conversation(where, values.get("messages"), values.get("prompt"))
    if turns is not None:
        values["prompt"] = turns[-1].content
    fields = {name: checked_text(where, name, values.get(name)) for name in TEXT_FIELDS}
    fields["infill"] = _infill(where, fields)
    fields |= {name: intern(value) for name in SHARED if (value := fields[name]) is not None}
    token_ids = _token_ids(where, values.get("token_ids"))
    if token_ids is None and not (fields["prompt"] or "").strip():
        raise InputError(f"{where}: the prompt is empty; give a text in the field 'prompt' or ids in 'token_ids'")
    return Prompt(id=identity, token_ids=token_ids, history=tuple(turns[:-1]) or None if turns else None, **fields)


def _identity(where: str, value: Any, default: str) -> str:
    if value is None or value == "":
        return default
    if isinstance(value, str):
        return str(checked_text(where, "id", value))
    if isinstance(value, Mapping | list | tuple):
        raise InputError(f"{where}: field 'id' is {shown(value)}, not a text or number")
    try:
        return str(value)
    except ValueError as error:  # Python prints no integer above 4,300 digits
        raise InputError(f"{where}: field 'id' is {shown(value)}; give a text or a shorter number") from error


def _infill(where: str, fields: Mapping[str, str | None]) -> str | None:
    prefill, infill = fields["prefill"], fields["infill"]
    if prefill is not None and (mark := looks_like_a_mask(prefill)):
        raise InputError(
            f"{where}: field 'prefill' holds {mark!r}, which looks like a mask and would be forced as text; give the "
            f"template in the field 'infill', with [[mask:N]] for N free positions"
        )
    if infill is None:
        return None
    if prefill is not None:
        raise InputError(f"{where}: has both 'prefill' and 'infill'; give one, the beginning can stand in the template")
    try:
        infill_parts(infill)
    except InputError as error:
        raise InputError(f"{where}: field 'infill': {error}") from error
    return plain_marks(infill)


def _token_ids(where: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: field 'token_ids' is not a JSON list of whole numbers") from error
    try:
        whole = not isinstance(value, str | bytes) and all(_is_id(number) for number in value)
        ids = tuple(int(number) for number in value) if whole else ()
    except TypeError:
        ids = ()
    if not ids:
        raise InputError(
            f"{where}: field 'token_ids' must be a non-empty list of whole numbers from 0 up to {LARGEST_ID}"
        )
    return ids


def _is_id(number: Any) -> bool:
    """Whether a number is a token id; a bool is none, and infinity and NaN compare false."""
    if isinstance(number, bool) or type(number).__name__ in ("bool", "bool_") or isinstance(number, str | bytes):
        return False
    return bool(0 <= number <= LARGEST_ID) and int(number) == number
