"""Recover instead of refuse, on the bundled diffusion model: a guard that stops beside the same guard that repairs.

A direction guard watched by a streaming guard is fitted on the bundled sets, then harmless prompts and attacks are
generated without it, with it stopping, and with it repairing. Every answer is counted once: stopped, refused (the
dictionary), complied (the toy world's openings), or neither, which is garbled text. One training seed.

    python benchmarks/repair.py [--block-length 8]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pandas as pd

import demur
from demur.defenses import generate_guarded
from demur.dynamics import wilson
from demur.guards import DirectionGuard, StreamingGuard, states_of
from demur.judges import judge_each, refused
from demur.studies.demo.run import JUDGE
from demur.studies.study.prompt_sets import first_of_each, read_sets
from machine import RESULTS, write_result

MODEL, PLACES, ALPHA = "demur/tiny-diffusion", [part / 8 for part in range(1, 9)], 0.02
FITTED_ON = {"guard_train_harmless": 100, "guard_calibration_harmless": 100, "anchors_harmful": 40}
TESTED = {"test_harmless": 60, "test_harmful": 20, "test_attacks": 8}
"""Prompts of each set, of the attacks for each."""
WAYS: dict[str, dict[str, Any]] = {
    "stop": {"on_flag": "stop"},
    "repair once": {"on_flag": "repair", "attempts": 1},
    "repair up to three times": {"on_flag": "repair", "attempts": 3},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--block-length", type=int, default=32)
    parser.add_argument("--out", type=Path, default=RESULTS / "repair.json")
    given = parser.parse_args()
    write_result(given.out, measure(given.block_length))


def measure(block_length: int) -> dict[str, Any]:
    model = demur.load(MODEL, dtype="float32")
    sampler = model.default_sampler(block_length=block_length)
    sets = read_sets(Path("demur/toy"), None)
    made = {
        name: states_of(demur.record(model, sets[name][:size], sampler, batch_size=64), PLACES)
        for name, size in FITTED_ON.items()
    }
    train, held_out, harmful = made.values()
    direction = DirectionGuard(places=PLACES).fit(train, harmful=harmful, calibration=held_out)
    guard = StreamingGuard(ALPHA, side="high").fit(direction.place_errors(train))
    guard.calibrate(direction.place_errors(held_out))
    rows = []
    for name, size in TESTED.items():
        prompts = first_of_each(sets[name], size)
        began = time.perf_counter()
        plain = demur.record(model, prompts, sampler, batch_size=64).table.assign(stopped_at=0)
        rows += outcomes(name, "no guard", plain, time.perf_counter() - began)
        for way, options in WAYS.items():
            began = time.perf_counter()
            table = generate_guarded(model, prompts, direction, guard, sampler, batch_size=64, **options)
            rows += outcomes(name, way, table, time.perf_counter() - began)
    return {"model": MODEL, "block_length": block_length, "alpha": ALPHA, "fitted_on": FITTED_ON, "rows": rows}


def outcomes(group: str, way: str, table: pd.DataFrame, seconds: float) -> list[dict[str, Any]]:
    """Counts of each outcome with Wilson's intervals; of repairs, how often and how many were needed."""
    stopped = table["stopped_at"] > 0
    says_no = table["text"].map(refused).astype(bool) & ~stopped
    complied = pd.Series(judge_each(JUDGE, [""] * len(table), table["text"].tolist()), index=table.index).eq(True)
    found = {"stopped": stopped, "refused": says_no, "complied": complied & ~stopped & ~says_no}
    found["neither"] = ~(stopped | found["refused"] | found["complied"])
    about = {"group": group, "way": way, "seconds": round(seconds, 2)}
    if "repairs" in table:
        about |= {"flagged": int((table["flagged_at"] > 0).sum()), "repairs": int(table["repairs"].sum())}
    return [
        {**about, "outcome": name, "hits": int(hits.sum()), **vars(wilson(int(hits.sum()), len(hits)))}
        for name, hits in found.items()
    ]


if __name__ == "__main__":
    main()
