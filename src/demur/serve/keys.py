"""The API keys of a server, from the environment or a file, never from the command line, which others can read.

In: the name of a variable, the path of a file. Out: keys. They are compared in `gate`.
"""

from __future__ import annotations

import os
from pathlib import Path

from demur.errors import InputError

VARIABLE = "DEMUR_API_KEY"
SHORTEST = 8


def keys_of(variable: str | None, file: Path | None) -> list[str]:
    """The keys: the value of the variable, by default DEMUR_API_KEY where it is set, and every line of the file.

    Raises `InputError` where a variable or file that was named holds none, and for a key that is too short.
    """
    found = []
    value = os.environ.get(variable or VARIABLE, "").strip()
    if variable is not None and not value:
        raise InputError(f"--api-key-env {variable}: the environment has no such variable; set it to the key")
    found += [value] if value else []
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: the keys cannot be read ({error}); give a text file, a key a line") from error
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not keys:
            raise InputError(f"{file}: holds no key; give a key a line")
        found += keys
    if any(len(key) < SHORTEST for key in found):
        raise InputError(f"an API key has fewer than {SHORTEST} characters; give a longer one")
    return found
