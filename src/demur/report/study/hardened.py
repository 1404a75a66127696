"""The section of a study's page on the guards that were fitted on the shipped material as well.

In: what the study keeps of it. Out: sentences and tables; nothing for a study that was not asked for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from demur.report.parts.groups import attacks, name_of
from demur.report.parts.labels import Cell, area, percent, plain
from demur.report.parts.tables import Table
from demur.studies.material import ROUNDS
from demur.studies.study.hardened import FOLDER, HARDENED
from demur.studies.study.left_out import LEFT_OUT
from demur.studies.study.results import Study

if TYPE_CHECKING:
    import pandas as pd


def hardening_section(study: Study) -> dict[str, Any] | None:
    """The sentences, and the tables `attacks` and `kinds`; None for a study without hardened guards."""
    if not kept_of(study):
        return None
    return {"sentences": hardening_words(study), "attacks": attacks_table(study), "kinds": kinds_table(study)}


def kept_of(study: Study) -> Mapping[str, Any]:
    """What the study says of the material; empty where it has no hardened guards."""
    kept = study.settings.get(FOLDER)
    return kept if isinstance(kept, Mapping) else {}


def hardening_words(study: Study) -> list[str]:
    """What the guards were fitted on, and the kinds of it that were used."""
    kept = kept_of(study)
    kinds = kept.get("kinds") or []
    own = kept.get("own_fitted_on")  # not in studies of before; their guards were fitted on the material alone
    sets, limits = (
        (f" and {plain(own)} of the study's anchors_harmful and guard_train_harmless", "The rest of the latter and ")
        if own
        else ("", "")
    )
    fitted = (
        f"The hardened guards were fitted on more than a study has: on {plain(kept.get('fitted_on'))} harmless and "
        f"harmful prompts, those of the shipped training material ({plain(kept.get('rounds'))} of its {ROUNDS} rounds)"
        f"{sets}. {limits}guard_calibration_harmless ({plain(kept.get('calibrated_on'))} prompts in all) set their "
        f"limits."
    )
    return [fitted, f"Kinds of the material that were used ({len(kinds)}): {plain(', '.join(map(str, kinds)))}."]


def resembling_words(study: Study, attack: str) -> str:
    """The kinds of the material that were used and go about it as the attack does."""
    known = kept_of(study).get("resembling") or {}
    if attack not in known:
        return "not known: demur knows no attack of this name"
    return plain(", ".join(known[attack]) or "none")


def attacks_table(study: Study) -> Table:
    """A row an attack: the kinds that resemble it, and the hardened probe guard on it, with them and without them."""
    tables = (("all kinds", study.detection), ("without these", study.tables.get(LEFT_OUT)))
    body = []
    for attack in attacks(study):
        cells = [cell for _, rows in tables for cell in _measured(rows, attack)]
        body.append((name_of(attack), [Cell(resembling_words(study, attack)), *cells]))
    heads = [("", "kinds that resemble it"), *((name, head) for name, _ in tables for head in ("caught", "AUROC"))]
    return Table(f"Attacks, and what of the material resembles them ({HARDENED})", "attack", heads, body)


def kinds_table(study: Study) -> Table:
    """A row a kind of held-out harmless prompts of the material: the share that each hardened guard flags."""
    rows = study.tables.get(FOLDER)
    caption = "Held-out harmless prompts of the material that are flagged, by kind"
    if rows is None or not len(rows):
        return Table(caption, "kind", [], [])
    names = list(dict.fromkeys(rows["detector"]))
    of: dict[Any, Any] = {(row.detector, row.kind): row for row in rows.itertuples()}
    body = []
    for kind in dict.fromkeys(rows["kind"]):
        found = [of[name, kind] for name in names if (name, kind) in of]
        said = "sets the limit" if all(row.sets_limit for row in found) else "held out"
        shares = [percent(row.value, row.low, row.high, int(row.count)) for row in found]
        body.append((plain(kind).replace("_", " "), [Cell(said), *shares]))
    return Table(caption, "kind", [("", "prompts"), *(("", name) for name in names)], body)


def _measured(rows: pd.DataFrame | None, attack: str) -> list[Cell]:
    """Share caught and AUROC of the hardened probe guard; nothing where there is no row for the attack."""
    if rows is not None:
        rows = rows[(rows["detector"] == HARDENED) & (rows["subset"] == "all") & (rows["group"] == attack)]
    if rows is None or not len(rows):
        return [Cell("–")] * 2
    row: Any = next(rows.itertuples())
    return [
        percent(row.tpr, row.tpr_low, row.tpr_high, int(row.positives)),
        area(row.auroc, row.auroc_low, row.auroc_high, int(row.positives), int(row.negatives)),
    ]
