"""`Prompt`, and what makes two prompt sets the same.

In: checked fields. Out: one immutable value a prompt, its row in a file, and a hash over many. How files and other
people's tables become prompts stands in the modules beside this one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.files.writing import write_whole

TEXT_FIELDS = ("prompt", "label", "attack", "goal", "category", "prefill", "infill")
FIELDS = ("id", *TEXT_FIELDS, "messages", "token_ids")
"""What a row may carry; other columns are ignored."""
INPUTS = ("prompt", "messages", "token_ids")
"""The fields one of which a row must have."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. role : "system", "user", "assistant" or "tool"."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: a user message, or ready token ids.

    id : unique within its set.
    prompt : the user message, of a conversation the last one; None where `token_ids` is given.
    label : "harmless", "harmful" or None; attack : name of the attack that wrapped it, or None.
    goal : the request under the attack; category : the source's own; both may be None.
    prefill : text forced as the beginning of the response, or None.
    infill : template of the response, forced text with gaps: ``"Step 1: [[mask:8]] Step 2: [[mask:8]]"`` leaves
        8 positions free after each text; for diffusion models, in place of `prefill`.
    token_ids : the whole input, chat format included; used as it is.
    history : the turns before the user message, a system message among them or not; None for a single message.
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
    history: tuple[Message, ...] | None = None

    @property
    def group(self) -> str:
        """What results are grouped by: the attack's name where there is one, else the label."""
        return self.attack or self.label or "unlabelled"

    @property
    def turns(self) -> list[dict[str, str]]:
        """The turns before the user message as chat templates take them; empty for a single message."""
        return [asdict(message) for message in self.history or ()]

    def to_row(self) -> dict[str, Any]:
        """The fields that are set, as `read_prompts` takes them."""
        row = {name: value for name, value in _content(self).items() if value is not None}
        if row.pop("history", None) is not None:
            row["messages"] = [*self.turns, {"role": "user", "content": row.pop("prompt")}]
        return row


def write_prompts(prompts: Iterable[Prompt], path: str | Path) -> None:
    """Write a prompt set to a ``.jsonl`` file that `read_prompts` reads back; fields that are None are left out."""
    path = Path(path)
    if path.suffix.lower() != ".jsonl":
        raise InputError(f"{path}: a prompt set is written as .jsonl; give a name that ends so")
    rows = [prompt.to_row() for prompt in prompts]
    write_whole(path, "".join(json.dumps(row) + "\n" for row in rows))


def prompts_hash(prompts: Iterable[Prompt]) -> str:
    """sha256 over the content of the prompts in their order: what makes two prompt sets the same."""
    digest = hashlib.sha256()
    for prompt in prompts:
        content = _content(prompt)
        for later in ("infill", "history"):
            if content[later] is None:
                del content[later]  # sets recorded before these fields were there keep their hash
        digest.update(json.dumps(content, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _content(prompt: Prompt) -> dict[str, Any]:
    """The fields of a prompt as plain values; `asdict` gives the same and takes ten times as long."""
    content = {name: getattr(prompt, name) for name in _NAMES}
    if prompt.history is not None:
        content["history"] = [asdict(message) for message in prompt.history]
    return content


_NAMES = tuple(one.name for one in fields(Prompt))
