"""Single values of a row: what counts as missing, what is text, and how a value is named in a message."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from demur.errors import InputError


def is_missing(value: Any) -> bool:
    """Whether a table's value stands for none: None, NaN, or pandas' NA."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or type(value).__name__ == "NAType"


def checked_text(where: str, name: str, value: Any) -> str | None:
    """A text that can be written as UTF-8, or None; `InputError` for anything else."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise InputError(f"{where}: field {name!r} is {shown(value)}, not text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: field {name!r} holds half of a character (a lone surrogate, U+{ord(value[error.start]):04X}, at "
            f"place {error.start + 1}), which cannot be encoded; correct the text"
        ) from error
    return value


def shown(value: Any) -> str:
    """A value in a message: short, and never an error of its own."""
    try:
        return str(value)[:200] if not isinstance(value, Mapping | list | tuple) else f"a {type(value).__name__}"
    except ValueError:  # Python prints no integer above 4,300 digits
        return "a number of more than 4,300 digits"
