"""Guards fitted on the states of the shipped material, their limits, and what they flag of its harmless prompts.

In: `Material`, and the kinds to use. Out: `Hardened`, which saves all of it in one folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.dynamics import FIELDS, wilson
from demur.files.listed import FILES, hashes_of
from demur.files.manifests import write_manifest
from demur.files.staging import switched
from demur.files.tables import write_table
from demur.guards import ProbeGuard, StreamingGuard
from demur.guards.calibration import warned_already
from demur.hardening import ATTACK_NAMES, WRAPPERS, resembling
from demur.looks import Looks
from demur.studies.hardening.recorded import EARLY, LOOKS, Material
from demur.studies.material import OWN, OWN_FITTED, PLAIN, TASKS, WRAPPED

if TYPE_CHECKING:
    import pandas as pd

JUDGED_AT = (*EARLY, 0.125, 0.5, 1.0)
"""The looks at which whole generations are judged."""

CHOICES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""The regularisations to choose among."""

LIMITING = (PLAIN, TASKS)
"""The kinds of held-out prompts that set limits, where there are no others to do so and kinds have no limits each."""

GUARD_FILE, LOOKS_FILE, STREAMING_FILE = (
    f"{name}.safetensors" for name in ("probe_guard", "probe_looks", "streaming_probe_guard")
)
TABLE_FILE, SETTINGS_FILE = "false_positives.parquet", "harden.json"


@dataclass(frozen=True)
class Hardened:
    """What `harden` finds.

    guard : judges whole generations. looks, stream : the same probes at ten looks, and the streaming guard that
        watches them; of whole answers `looks` is `guard`. false_positives : a row a kind of held-out harmless prompts.
        settings : kinds and C that were used, and for each known attack the kinds among them that resemble it.
        without : the same fitted without some kinds, by these kinds; of a study those that resemble one of its attacks.
    """

    guard: ProbeGuard
    looks: ProbeGuard
    stream: StreamingGuard
    false_positives: pd.DataFrame
    settings: dict[str, Any]
    without: Mapping[tuple[str, ...], Hardened] = field(default_factory=dict)

    def save(self, out: Path) -> None:
        """Write guards, table and settings into a folder: all at once or nothing."""
        with switched(out, SETTINGS_FILE) as new:
            for name, guard in ((GUARD_FILE, self.guard), (LOOKS_FILE, self.looks), (STREAMING_FILE, self.stream)):
                guard.save(new / name)
            files = hashes_of(new)
            table = write_table(new / TABLE_FILE, self.false_positives)
            write_manifest(new / SETTINGS_FILE, {**self.settings, FILES: files, "tables": {TABLE_FILE: table}})


@warned_already()
def fit_hardened(
    found: Material,
    kinds: Sequence[str],
    *,
    quantile: float = 0.985,
    by_kind: bool = False,
    choices: Sequence[float] = CHOICES,
    say: Callable[[str], None] = lambda line: None,
) -> Hardened:
    """Guards fitted on the kinds that are left, their limits, and the false positives by kind."""
    table = found.table
    used = table["kind"].isin(kinds).to_numpy() & ~table["held_out"].to_numpy()
    held_out = table["kind"].isin(kinds).to_numpy() & table["held_out"].to_numpy()
    held_out &= ~table["harmful"].to_numpy()
    own = held_out & table["kind"].isin((OWN, OWN_FITTED)).to_numpy()
    chosen = own if own.any() else held_out & table["kind"].isin(LIMITING).to_numpy()
    limiting = held_out if by_kind else chosen
    harmful, families = table["harmful"].to_numpy()[used], table["family"].to_numpy(dtype=str)[used]
    whole = isinstance(found.places, Looks)
    places = found.places if whole else JUDGED_AT
    guard = ProbeGuard(quantile, places=places, C=choices, joint="layers" if whole else True)
    guard.fit(found.chosen(used, guard.places), harmful, groups=families)
    say(f"C = {guard.C_:g} of {', '.join(f'{choice:g}' for choice in choices)}")
    looks = guard
    if not whole:
        looks = ProbeGuard(quantile, places=LOOKS, C=guard.C_, joint="layers")  # each look is judged by itself
        looks.fit(found.chosen(used), harmful, groups=families)
    alpha = max(1 - quantile, 1 / (int(limiting.sum()) + 1))
    stream = StreamingGuard(alpha, side="high")
    harmless = np.flatnonzero(used)[~harmful]
    stream.fit(looks.place_errors(found.chosen(harmless)))
    names = _names(table, limiting) if by_kind else None
    guard.calibrate(found.chosen(limiting, guard.places), names)
    looks.calibrate(found.chosen(limiting), names)
    stream.calibrate(looks.place_errors(found.chosen(limiting)))
    say(
        f"limit from {guard.n_calibration_} held-out harmless prompts: it flags {guard.false_positive_low_:.1%} to "
        f"{guard.false_positive_high_:.1%} of further ones like them (95% interval)"
    )
    rates = false_positives(guard, looks, stream, found, held_out, limiting)
    return Hardened(guard, looks, stream, rates, _settings(guard, kinds, used, limiting, by_kind))


def _names(table: pd.DataFrame, rows: np.ndarray) -> np.ndarray:
    """The kinds by which limits are kept and rates counted: wrappers are too few each and count together."""
    names = table["kind"].where(~table["kind"].isin(list(WRAPPERS)), WRAPPED)
    return np.asarray(names.to_numpy(dtype=str)[rows])


def false_positives(
    guard: ProbeGuard,
    looks: ProbeGuard,
    stream: StreamingGuard,
    found: Material,
    held_out: np.ndarray,
    limiting: np.ndarray,
) -> pd.DataFrame:
    """How often held-out harmless prompts of each kind are flagged, or stopped on their way.

    held_out, limiting : which prompts of the material are held out, and which of them set the limits. Columns detector,
    kind, sets_limit (the rate then is the calibration's own), value, low, high, count, hits.
    """
    import pandas as pd

    names, own = _names(found.table, held_out), limiting[held_out]
    verdicts = {
        type(guard).__name__: guard.predict(found.chosen(held_out, guard.places)) == -1,
        f"{type(stream).__name__} on the {looks.watched_as}": stream.stops(looks.place_errors(found.chosen(held_out)))
        > 0,
    }
    made = [
        {"detector": name, "kind": kind, "sets_limit": bool(own[names == kind].all())}
        | vars(wilson(int(flags[names == kind].sum()), int((names == kind).sum())))
        for name, flags in verdicts.items()
        for kind in dict.fromkeys(names)
    ]
    return pd.DataFrame(made, columns=["detector", "kind", "sets_limit", *FIELDS])


def _settings(
    guard: ProbeGuard, kinds: Sequence[str], used: np.ndarray, limiting: np.ndarray, by_kind: bool
) -> dict[str, Any]:
    made = guard.provenance_
    resembled = {attack: resembling(attack) or () for attack in sorted(set(ATTACK_NAMES.values()))}
    places = guard.places
    whole = {"keep": "looks", "looks": vars(places)} if isinstance(places, Looks) else {}
    return {
        "model": made.model if made else None,
        "layers": list(made.layers) if made else None,
        **whole,
        "kinds": list(kinds),
        "fitted_on": int(used.sum()),
        "calibrated_on": int(limiting.sum()),
        "false_positive_interval": [guard.false_positive_low_, guard.false_positive_high_],
        "limit_by_kind": by_kind,
        "C": guard.C_,
        "auroc_of_families_left_out": {f"{choice:g}": area for choice, area in guard.carried_over_.items()},
        "resembling": {attack: [kind for kind in found if kind in kinds] for attack, found in resembled.items()},
    }
