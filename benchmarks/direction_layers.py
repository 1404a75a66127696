"""Choose the layers, places and anchors of a direction guard on all attacks but one, and measure it on that one.

In: a study whose recordings keep several layers. Out: for every attack the setting that was best on the others, by the
sum of mean AUROC and mean share caught at the calibrated limit, and what it does on this attack; one JSON file.

    python benchmarks/direction_layers.py runs/NAME --attacks PAIR GCG JBC random_search
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from demur.dynamics import wilson
from demur.guards import DirectionGuard, states_of
from demur.recording import Recording
from demur.studies.study.detection import auroc
from machine import RESULTS, write_result

PLACES = {"last": (1.0,), "half and last": (0.5, 1.0), "1/8, 1/4, half and last": (0.125, 0.25, 0.5, 1.0)}
HARMFUL = ("refused", "all")
SETS = ("guard_train_harmless", "guard_calibration_harmless", "test_harmless", "test_attacks", "anchors_harmful")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--attacks", nargs="+", required=True)
    parser.add_argument("--quantile", type=float, default=0.985)
    parser.add_argument("--out", type=Path, default=RESULTS / "direction-layers.json")
    given = parser.parse_args()
    recordings = {name: Recording(given.study / "recordings" / name) for name in SETS}
    layers = recordings["test_harmless"].provenance.layers
    tables = {name: recording.table for name, recording in recordings.items()}
    refused = tables["anchors_harmful"]["refused"].to_numpy(dtype=bool)
    attacks = tables["test_attacks"]["attack"].to_numpy(dtype=str)
    found: dict[tuple[Any, ...], dict[str, tuple[Any, Any]]] = {}
    clean: dict[tuple[Any, ...], Any] = {}
    for places, shares in PLACES.items():
        states = {name: np.asarray(states_of(recording, shares)) for name, recording in recordings.items()}
        for harmful in HARMFUL:
            kept = states["anchors_harmful"][refused if harmful == "refused" else slice(None)]
            alone = [_errors(states, kept, layer, given.quantile, shares) for layer in range(len(layers))]
            for count in range(1, len(layers) + 1):
                for chosen in combinations(range(len(layers)), count):
                    errors = {name: np.mean([alone[layer][name] for layer in chosen], axis=0) for name in SETS[1:4]}
                    limit = np.quantile(errors["guard_calibration_harmless"], given.quantile)
                    key = harmful, places, tuple(layers[layer] for layer in chosen)
                    clean[key] = wilson(int((errors["test_harmless"] > limit).sum()), len(errors["test_harmless"]))
                    found[key] = {
                        attack: (auroc(errors["test_harmless"], own), wilson(int((own > limit).sum()), len(own)))
                        for attack in given.attacks
                        for own in [errors["test_attacks"][attacks == attack]]
                    }
    rows = []
    for attack in given.attacks:
        others = [one for one in given.attacks if one != attack]
        best = max(
            found, key=lambda key: sum(area.value + caught.value for area, caught in map(found[key].get, others))
        )
        area, caught = found[best][attack]
        rows.append(
            {"attack": attack, "harmful": best[0], "places": best[1], "layers": list(best[2])}
            | {"auroc": vars(area), "caught": vars(caught), "flagged_harmless": vars(clean[best])}
        )
    means = {name: float(np.mean([row[name]["value"] for row in rows])) for name in ("auroc", "caught")}
    write_result(
        given.out,
        {
            "layers": list(layers),
            "settings_tried": len(found),
            "quantile": given.quantile,
            "rows": rows,
            "means": means,
        },
    )
    print(means)


def _errors(states: dict[str, Any], harmful: Any, layer: int, quantile: float, places: Any) -> dict[str, Any]:
    """Errors of the sets that are measured, with one layer alone; those of several layers are their means."""
    one = {name: values[:, :, [layer]] for name, values in states.items()}
    guard = DirectionGuard(quantile, places=places).fit(one["guard_train_harmless"], harmful=harmful[:, :, [layer]])
    return {name: guard.errors(one[name]) for name in SETS[1:4]}


if __name__ == "__main__":
    main()
