"""Tables of what ships: prompts by kind and label, wrappers by family.

In: nothing. Out: DataFrames; the page of the documentation shows them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from demur.hardening.prompts import hardening_prompts
from demur.hardening.table import WRAPPERS

if TYPE_CHECKING:
    import pandas as pd


def prompt_counts() -> pd.DataFrame:
    """A row a category of the shipped prompts: `category`, `harmless`, `harmful`, `words` (median of a prompt)."""
    import pandas as pd

    rows = [(p.category, p.label, len(str(p.prompt).split())) for p in hardening_prompts()]
    table = pd.DataFrame(rows, columns=["category", "label", "words"])
    counts = table.pivot_table(index="category", columns="label", values="words", aggfunc="size", fill_value=0)
    counts = counts.reindex(columns=["harmless", "harmful"], fill_value=0).astype(int)
    counts["words"] = table.groupby("category")["words"].median()
    return counts.rename_axis(columns=None).reset_index()


def wrapper_counts() -> pd.DataFrame:
    """A row a wrapper: `kind`, `family`, `resembles` (names of attacks), `legible`."""
    import pandas as pd

    rows = [(w.kind, w.family, ", ".join(w.resembles), w.legible) for w in WRAPPERS.values()]
    return pd.DataFrame(rows, columns=["kind", "family", "resembles", "legible"])
