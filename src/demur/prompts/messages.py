"""Conversations of several turns, in the shape that chat APIs exchange: a list of ``{"role": ..., "content": ...}``.

In: the field `messages` of a row. Out: its turns, ending in the user's. Content may be a text or a list of text parts;
anything that is not text (images, tool calls) is refused, because it would be left out of the prompt that runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from demur.errors import InputError
from demur.prompts.prompt import Message
from demur.prompts.values import checked_text

ROLES = ("system", "developer", "user", "assistant", "tool")


def conversation(where: str, value: Any, prompt: Any) -> list[Message] | None:
    """The turns of `messages`, the last one the user's; None where the row has none.

    Raises `InputError` for a shape that is not a conversation, and where `prompt` says something else.
    """
    if value is None:
        return None
    turns = [_message(where, number, turn) for number, turn in enumerate(_listed(where, value), start=1)]
    if not turns:
        raise InputError(f"{where}: field 'messages' is empty; give at least one message of the user")
    if turns[-1].role != "user":
        raise InputError(
            f"{where}: the last of its messages is of the role {turns[-1].role!r}; end with the user's, and give the "
            f"beginning of an answer as 'prefill'"
        )
    if any(turn.role in ("system", "developer") for turn in turns[1:]):
        raise InputError(f"{where}: a system message stands behind others; it can only be the first")
    if prompt is not None and prompt != turns[-1].content:
        raise InputError(
            f"{where}: has both 'prompt' and 'messages', which differ; leave one out by --column prompt= or "
            f"--column messages= (columns={{'prompt': None}})"
        )
    return turns


def _listed(where: str, value: Any) -> Sequence[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: field 'messages' is a text, and no JSON list of messages") from error
    if hasattr(value, "tolist"):  # Parquet gives arrays
        value = value.tolist()
    if not isinstance(value, list | tuple):
        raise InputError(f"{where}: field 'messages' is a {type(value).__name__}, not a list of role and content")
    return value


def _message(where: str, number: int, turn: Any) -> Message:
    place = f"{where}, message {number}"
    if not isinstance(turn, Mapping) or not {"role", "content"} <= set(turn):
        raise InputError(f"{place}: is no object with 'role' and 'content'")
    role = turn["role"]
    if role not in ROLES:
        raise InputError(f"{place}: role {str(role)[:40]!r} is none of {', '.join(ROLES)}")
    if turn.get("tool_calls"):
        raise InputError(f"{place}: holds tool calls, which are not text; leave the row out")
    content = checked_text(place, "content", _text_of(place, turn["content"]))
    if not (content or "").strip() and role in ("system", "developer", "user"):
        raise InputError(f"{place}: its content is empty; give a text")
    return Message(role, content or "")


def _text_of(place: str, content: Any) -> Any:
    """The text of content in parts, joined; texts and everything else as they are."""
    if hasattr(content, "tolist"):
        content = content.tolist()
    if not isinstance(content, list | tuple):
        return content
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise InputError(f"{place}: holds a part that is not text; only text can be recorded")
    return "".join(part["text"] for part in content)
