"""Plugins: what others add to demur under a name, and how a name finds it.

In: names. Out: the attack, judge, sampler or guard of that name; each room keeps a `Registry` of its own. A plugin is a
module that registers things when it is imported. Installed packages name theirs in the entry-point group
"demur.plugins", read only where demur itself knows no such name; `load_plugin` imports one by name.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from demur.errors import InputError

GROUP = "demur.plugins"

T = TypeVar("T")


class Registry(dict[str, T]):
    """Things of one kind by name, such as attacks.

    what : the kind, for errors. known : demur's own.
    """

    def __init__(self, what: str, known: Mapping[str, T] | None = None) -> None:
        super().__init__(known or {})
        self.what = what

    def register(self, name: str) -> Callable[[T], T]:
        """A decorator that puts a function or a class under `name`.

        Raises `InputError` where another has that name; the same one, defined again as notebooks do, replaces itself.
        """

        def put(thing: T) -> T:
            there = self.get(name)
            if there is not None and _origin(there) != _origin(thing):
                raise InputError(
                    f"{self.what} {name!r} is there already, as {_origin(there)}; give {_origin(thing)} another name"
                )
            self[name] = thing
            return thing

        return put

    def names(self) -> list[str]:
        """All names, those of installed plugins included."""
        load_installed()
        return list(self)

    def find(self, name: str, known: str = "") -> T:
        """What has that name; `InputError` says which there are, or `known`, where none has."""
        if name not in self:
            load_installed()
        if name not in self:
            raise InputError(f"{self.what} {name!r} is unknown; give one of {known or ', '.join(self)}")
        return self[name]


@cache
def load_installed() -> None:
    """Import the plugins of all installed packages, once; a warning names one that cannot be imported."""
    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:  # whatever somebody's module raises
            warnings.warn(f"plugin {entry.name} ({entry.value}) is left out: {_reason(error)}", stacklevel=2)


def load_plugin(name: str) -> ModuleType:
    """Import a plugin: a dotted module name, or the path of a `.py` file. Its code runs.

    Raises `InputError` where it cannot be imported, in one line.
    """
    try:
        return _of_file(Path(name)) if name.endswith(".py") else import_module(name)
    except Exception as error:  # whatever somebody's module raises
        raise InputError(f"plugin {name}: cannot be imported: {_reason(error)}") from error


def _of_file(path: Path) -> ModuleType:
    name = f"demur_plugin_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise FileNotFoundError("no such file")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _origin(thing: object) -> str:
    """The module and name of a function or class, of what is made of one those of that."""
    thing = getattr(thing, "__wrapped__", thing)
    return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', repr(thing))}"


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
