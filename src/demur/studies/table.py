"""What a table of a study or of the protocol is: a function under a name, with what a page has to say of it.

In: functions, each registered in a file of its own. Out: `Tables`, from which studies make, keep, read and show them.
What a table is made from is the argument of its function.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Generic, TypeVar

from demur.errors import InputError
from demur.plugins import Registry

if TYPE_CHECKING:
    import pandas as pd

M = TypeVar("M")


@dataclass(frozen=True)
class TableKind(Generic[M]):
    """A kind of table.

    name : of its file, ``NAME.parquet``. columns : those it always has. make : makes it. title, note : its heading and
    explanation on a page. needs : what it takes, said where it is empty. place : the lower, the earlier on a page.
    areas : its values are AUROCs and not shares.
    """

    name: str
    columns: tuple[str, ...]
    make: Callable[[M], pd.DataFrame]
    title: str
    note: str = ""
    needs: str = ""
    place: int = 100
    areas: bool = False

    @property
    def __wrapped__(self) -> Callable[[M], pd.DataFrame]:
        """The function, by which a registry tells a table defined again from another of the same name."""
        return self.make

    def empty(self) -> pd.DataFrame:
        """A table of its columns without rows."""
        import pandas as pd

        return pd.DataFrame(columns=list(self.columns))


class Tables(Registry[TableKind[M]]):
    """All tables of one kind of results, by name; `taken` are names that no table may have."""

    def __init__(self, what: str, taken: Collection[str] = ()) -> None:
        super().__init__(what)
        self.taken = frozenset(taken)

    def table(
        self,
        name: str,
        *,
        columns: Sequence[str],
        title: str,
        note: str = "",
        needs: str = "",
        place: int = 100,
        areas: bool = False,
    ) -> Callable[[Callable[[M], pd.DataFrame]], Callable[[M], pd.DataFrame]]:
        """A decorator that registers a function as the table `name`; the arguments are those of `TableKind`.

        Raises `InputError` for a name that is no plain word or is taken.
        """
        if not name.isidentifier() or name.startswith("_") or name in self.taken:
            reason = "is taken" if name in self.taken else "must be a word of letters, digits and underscores"
            raise InputError(f"{self.what} {name!r}: its name {reason}; give it another")

        def put(make: Callable[[M], pd.DataFrame]) -> Callable[[M], pd.DataFrame]:
            kind = TableKind(name, tuple(columns), make, title, note, needs, place, areas)
            self.register(name)(kind)
            return make

        return put

    def in_order(self) -> list[TableKind[M]]:
        """The tables as they stand on a page."""
        return sorted(self.values(), key=lambda kind: kind.place)


def import_all(package: str, paths: Sequence[str]) -> None:
    """Import every module of a package, each of which registers its tables."""
    for found in sorted(iter_modules(paths), key=lambda one: one.name):
        import_module(f"{package}.{found.name}")
