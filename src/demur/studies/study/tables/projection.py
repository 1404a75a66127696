"""Linear discriminant projection of signals to two dimensions (arXiv 2602.02600, section 5).

In: signals with a kind each. Out: a tidy table of points. Separation that this shows is fitted to the points
it shows; it is a picture, not a test.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from demur.studies.study.material import STUDY_TABLES, Material

if TYPE_CHECKING:
    import pandas as pd

KINDS = ("harmless", "refused", "complied under attack")


@STUDY_TABLES.table(
    "projection",
    columns=("place", "kind", "x", "y"),
    title="Signals in two dimensions",
    needs="harmless, refused and complied generations, two of each",
)
def projection(material: Material) -> pd.DataFrame:
    """The signals of the study's test generations."""
    return projection_table(material.signals, material.generations)


def projection_table(signals: np.ndarray, generations: pd.DataFrame) -> pd.DataFrame:
    """Project the test generations of three kinds to the two axes that part them best.

    signals : ``[generations, steps]``. Kinds: harmless test prompts, refused harmful or attack prompts, and
    attack prompts that were complied with. Columns place (row of `generations`), kind, x, y; empty where
    fewer than three kinds have two members each.
    """
    import pandas as pd
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    kinds = _kinds(generations)
    places = np.flatnonzero(kinds != "")
    names, counts = np.unique(kinds[places], return_counts=True)
    if len(names) < len(KINDS) or counts.min() < 2:
        return pd.DataFrame({"place": pd.array([], "int64"), "kind": pd.array([], "string"), "x": [], "y": []})
    # Neighbouring steps are nearly collinear; shrinkage keeps the within-class covariance invertible.
    discriminant = LinearDiscriminantAnalysis(n_components=2, solver="eigen", shrinkage="auto")
    points = discriminant.fit_transform(signals[places], kinds[places])
    return pd.DataFrame({"place": places, "kind": kinds[places], "x": points[:, 0], "y": points[:, 1]})


def _kinds(generations: pd.DataFrame) -> np.ndarray:
    """The kind of each generation, empty for those left out."""
    refused = generations["refused"].fillna(value=False).to_numpy(dtype=bool)
    sets = generations["set"].to_numpy(dtype=str)
    kinds = np.full(len(sets), "", dtype=object)
    kinds[sets == "test_harmless"] = KINDS[0]
    kinds[np.isin(sets, ["test_harmful", "test_attacks"]) & refused] = KINDS[1]
    kinds[(sets == "test_attacks") & ~refused] = KINDS[2]
    return kinds.astype(str)
