"""JSON files of a checkpoint, read with limits.

In: a path. Out: a JSON object as a dict. Every fault is an `InputError` of one line that names the file, so that a
half-written or hostile file never reaches the reader behind it. `demur.files.writing` is stricter with demur's own
files: a tokenizer_config.json usually holds an integer of 31 digits, and a config.json may hold Infinity.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.files.writing import read_whole

MOST_BYTES = 256 << 20
"""Vocabularies of 260,000 tokens take about 35 MB."""
DEEPEST = 64
TOKENIZER_JSON = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.json",
    "vocab.json",
    "chat_template.json",
    "tekken.json",
)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; `InputError` where it is too large, too deep, damaged or no object."""
    content = read_whole(path)
    if len(content) > MOST_BYTES:
        raise InputError(f"{path}: has {len(content):,} bytes; at most {MOST_BYTES:,} are read")
    try:
        found = json.loads(content.decode("utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is not valid JSON ({_line(error)}); get the file again") from error
    except RecursionError as error:
        raise InputError(f"{path}: is nested too deep; get the file again") from error
    if not isinstance(found, dict):
        raise InputError(f"{path}: holds a {type(found).__name__}, expected a JSON object; get the file again")
    if path.name != "tokenizer.json" and _deeper_than(found, DEEPEST):  # its own reader has a limit
        raise InputError(f"{path}: is nested deeper than {DEEPEST} levels; get the file again")
    return found


def read_json_if_there(path: Path) -> dict[str, Any]:
    """As `read_json`, and an empty dict where there is no such file."""
    return read_json(path) if path.is_file() else {}


def require_tokenizer_files(folder: Path) -> None:
    """`InputError` for a JSON file of the tokenizer that is damaged, or that names a file elsewhere."""
    for name in TOKENIZER_JSON:
        found = read_json_if_there(folder / name)
        others = found.get("fast_tokenizer_files") or []
        if name == "tokenizer_config.json" and any("/" in str(one) or "\\" in str(one) for one in others):
            raise InputError(f"{folder / name}: fast_tokenizer_files names a file outside the folder; remove the key")


def _deeper_than(value: Any, levels: int) -> bool:
    layer = [value]
    for _ in range(levels):
        children = [list(one.values()) if isinstance(one, dict) else one for one in layer]
        layer = [child for group in children for child in group if isinstance(child, dict | list)]
        if not layer:
            return False
    return True


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
