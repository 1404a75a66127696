"""Users' own modules: imported before names are resolved, and classes named as MODULE:CLASS.

In: names, looked up in the current folder too. Out: what they define; `InputError` where they cannot be imported.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from demur.errors import InputError
from demur.plugins import load_plugin


def load_plugins(names: list[str] | None) -> list[str] | None:
    """Import modules that register attacks, samplers, guards or judges; the option's callback."""
    for name in names or []:
        _imported(name)
    return names


def _imported(name: str) -> ModuleType:
    """A module by name, or a .py file."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)  # as `python -m` does, and the installed command does not
    return load_plugin(name)


def named(text: str, option: str) -> Any:
    """What "MODULE:NAME" stands for."""
    module, _, name = text.partition(":")
    found = getattr(_imported(module), name, None)
    if found is None:
        raise InputError(f"{option} {text}: {module} defines no {name!r}")
    return found
