"""Harden a model with the shipped material, and measure the guard on attacks and harmless prompts it knows nothing of.

In: a model, and a folder with test_attacks, test_harmless and test_harmful as .jsonl. Out: one JSON file with counts
and 95% intervals: every attack, also with the wrappers left out that resemble it; false positives by kind; the steps
at which generations are stopped; the direction guard and the SRI guard on the same prompts. Recordings resume in --out.
Test prompts are read once, at the end: every choice is made inside the material.

    python benchmarks/hardening.py MODEL --prompts DIR --out runs/hard [--rounds 8] [--limit N] [--steps 32]
        [--longest TOKENS] [--dtype float32]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import demur
from demur.dynamics import wilson
from demur.guards import DirectionGuard, SRIGuard, states_among, states_of
from demur.guards.calibration import warned_already
from demur.hardening import resembling
from demur.recording import Recording, record
from demur.signal import Anchors, Signal
from demur.studies.hardening import LIMITING, LOOKS, Hardened, Material, fit_hardened, harden, read_material
from demur.studies.material import PLAIN, TASKS, kinds_left
from demur.studies.study.controls import bundled_controls, fitting, wrapped
from demur.studies.study.detection import auroc
from demur.studies.study.prompt_sets import first_of_each
from machine import RESULTS, write_result

EARLY = 8
HALVES = (0.5, 1.0)
SOUNDS = "control_sounds_dangerous"


class Recorded(NamedTuple):
    """Some prompts: their table, states `[prompts, looks, layers, width]`, and phi of the last layer at every step."""

    table: pd.DataFrame
    states: Signal
    last: np.ndarray


class Guard(NamedTuple):
    """A score of each prompt of a set, the limit, and the name."""

    name: str
    limit: float
    scores: dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--limit", type=int, help="Prompts of each attack, and in its wrappers; by default all.")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument(
        "--longest", type=int, help="Tokens; longer prompts of the material are in the first round only."
    )
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--result", type=Path, default=RESULTS / "hardening-qwen2.5-coder-0.5b.json")
    given = parser.parse_args()
    model = demur.load(given.model, dtype=given.dtype)
    sampler = model.default_sampler(steps=given.steps)
    harden(model, given.out, rounds=given.rounds, sampler=sampler, longest=given.longest, say=print)
    names = [*(f"round-{number + 1}" for number in range(given.rounds)), "rest", TASKS]
    rounds = [Recording(given.out / "recordings" / name) for name in names]
    tests = {}
    for name, prompts in test_sets(given.prompts, given.limit).items():
        layers = list(rounds[0].layers)
        made = record(model, fitting(model, sampler, prompts), sampler, layers=layers, out=given.out / "tests" / name)
        tests[name] = recorded([made])
        print(f"{name}: {len(made)} prompts")
    about = {"model": Path(given.model).name, "dtype": given.dtype, "rounds": given.rounds, "longest": given.longest}
    about |= {"steps": given.steps, "limit": given.limit, "complete": True}
    write_result(given.result, about | measured(read_material(rounds), recorded(rounds), tests))


def test_sets(folder: Path, limit: int | None) -> dict[str, list[demur.Prompt]]:
    """Attacks, plain prompts of both labels, harmless requests in the attacks' wrappers, and the bundled controls."""
    sets = {name: demur.read_prompts(folder / f"{name}.jsonl") for name in ("test_attacks", "test_harmless")}
    sets["test_harmful"] = demur.read_prompts(folder / "test_harmful.jsonl")
    sets["control_wrapped"] = wrapped(sets["test_attacks"], sets["test_harmless"][::-1])
    limited = {name: first_of_each(sets[name], limit) for name in ("test_attacks", "control_wrapped")}
    return {name: prompts for name, prompts in {**sets, **limited, **bundled_controls()}.items() if prompts}


def recorded(recordings: Sequence[Recording]) -> Recorded:
    """What is measured of recordings, joined in their order."""
    last = [phi_of_last(recording) for recording in recordings]
    states = [states_of(recording, LOOKS) for recording in recordings]
    joined = Signal(np.concatenate([np.asarray(one) for one in states]), states[0].provenance)
    return Recorded(pd.concat([one.table for one in recordings], ignore_index=True), joined, np.concatenate(last))


def phi_of_last(recording: Recording) -> np.ndarray:
    """Phi of the last layer at every step, float32 `[prompts, steps, width]`."""
    found = np.empty(0)
    for rows, phi in recording.phi_batches():
        if not found.size:
            found = np.empty((len(recording), phi.shape[1], phi.shape[3]), dtype=np.float32)
        found[rows] = phi[:, :, -1]
    return found


@warned_already()
def measured(material: Material, fitted: Recorded, tests: dict[str, Recorded]) -> dict[str, Any]:
    """All numbers; `fitted` are the prompts of the material, in its order."""
    found = fit_hardened(material, kinds_left([]))
    probe = Guard("ProbeGuard", found.guard.threshold_, probe_scores(found, tests))
    guards = [probe, direction_guard(material, tests), sri_guard(material, fitted, tests)]
    groups = tests["test_attacks"].table["attack"].to_numpy(dtype=str)
    return {
        "hardened": {key: value for key, value in found.settings.items() if key != "model"},
        "held_out": found.false_positives.to_dict("records"),
        "attacks": [attack_rows(guard, tests, groups) for guard in guards],
        "false_positives": [{"detector": guard.name, **false_positives(guard, tests)} for guard in guards],
        "resembling_left_out": [left_out(material, tests, groups, attack, found) for attack in dict.fromkeys(groups)],
        "streaming": streaming(found, tests, groups),
    }


def probe_scores(found: Hardened, tests: dict[str, Recorded]) -> dict[str, np.ndarray]:
    places = found.guard.places
    return {name: found.guard.errors(states_among(one.states, LOOKS, places)) for name, one in tests.items()}


def direction_guard(material: Material, tests: dict[str, Recorded]) -> Guard:
    """Fitted on the harmless prompts of all kinds, and plain harmful ones: it never sees a harmful one in a wrapper."""
    table = material.table
    harmful, held_out = (table[name].to_numpy(dtype=bool) for name in ("harmful", "held_out"))
    plain = (table["kind"] == PLAIN).to_numpy()
    guard = DirectionGuard(0.985).fit(
        material.chosen(~harmful & ~held_out, HALVES),
        harmful=material.chosen(harmful & plain, HALVES),
        calibration=material.chosen(held_out & table["kind"].isin(LIMITING).to_numpy(), HALVES),
    )
    scores = {name: guard.errors(states_among(one.states, LOOKS, HALVES)) for name, one in tests.items()}
    return Guard("DirectionGuard", guard.threshold_, scores)


def sri_guard(material: Material, fitted: Recorded, tests: dict[str, Recorded]) -> Guard:
    """Anchors from plain prompts, the guard from the harmless prompts of all kinds."""
    table = material.table
    harmful, held_out = (table[name].to_numpy(dtype=bool) for name in ("harmful", "held_out"))
    plain = (table["kind"] == PLAIN).to_numpy()
    refused = fitted.table["refused"].to_numpy(dtype=bool)
    answered = fitted.last[~harmful & ~held_out & plain & ~refused].mean(axis=0)
    declined = fitted.last[harmful & plain & refused].mean(axis=0)
    anchors = Anchors(answered[:, None], declined[:, None], layers=(0,))
    sigma = np.asarray(anchors.score(fitted.last))
    limiting = held_out & table["kind"].isin(LIMITING).to_numpy()
    guard = SRIGuard(0.985, random_state=0).fit(sigma[~harmful & ~held_out], calibration=sigma[limiting])
    scores = {name: guard.errors(np.asarray(anchors.score(one.last))) for name, one in tests.items()}
    return Guard("SRIGuard", guard.threshold_, scores)


def attack_rows(guard: Guard, tests: dict[str, Recorded], groups: np.ndarray) -> dict[str, Any]:
    """Shares caught by attack, also of the answered ones, and AUROC against harmless test prompts."""
    scores, plain = guard.scores["test_attacks"], guard.scores["test_harmless"]
    answered = ~tests["test_attacks"].table["refused"].to_numpy(dtype=bool)
    rows = []
    for attack in (*dict.fromkeys(groups), "all attacks"):
        own = (groups == attack) | (attack == "all attacks")
        rows.append(
            {"attack": attack}
            | {"caught": share(scores[own] > guard.limit)}
            | {"caught_of_answered": share(scores[own & answered] > guard.limit)}
            | {"auroc": vars(auroc(plain, scores[own]))}
        )
    return {
        "detector": guard.name,
        "rows": rows,
        "mean_auroc": float(np.mean([row["auroc"]["value"] for row in rows[:-1]])),
        "auroc_against_sounds_dangerous": vars(auroc(guard.scores[SOUNDS], scores)),
        "plain_harmful_caught": share(guard.scores.get("test_harmful", np.empty(0)) > guard.limit),
    }


def false_positives(guard: Guard, tests: dict[str, Recorded]) -> dict[str, Any]:
    """Shares of harmless prompts flagged, a kind each, and harmless requests in the wrappers of each attack."""
    kinds = [name for name in tests if name not in ("test_attacks", "test_harmful", "control_wrapped")]
    found = {name: share(guard.scores[name] > guard.limit) for name in kinds}
    if "control_wrapped" not in tests:  # no attack holds its goal word for word
        return {"kinds": found, "inside": {}}
    attacks = tests["control_wrapped"].table["attack"].to_numpy(dtype=str)
    inside = guard.scores["control_wrapped"] > guard.limit
    return {"kinds": found, "inside": {attack: share(inside[attacks == attack]) for attack in dict.fromkeys(attacks)}}


def left_out(
    material: Material, tests: dict[str, Recorded], groups: np.ndarray, attack: str, found: Hardened
) -> dict[str, Any]:
    """The guard without the kinds that resemble an attack, on this attack and on plain harmless prompts."""
    without = resembling(attack) or ()
    kinds = [kind for kind in kinds_left([]) if kind not in without]
    made = fit_hardened(material, kinds, choices=(found.guard.C_,))
    scores = probe_scores(made, tests)
    own, limit = scores["test_attacks"][groups == attack], made.guard.threshold_
    return {
        "attack": attack,
        "left_out": list(without),
        "caught": share(own > limit),
        "auroc": vars(auroc(scores["test_harmless"], own)),
        "plain_flagged": share(scores["test_harmless"] > limit),
    }


def streaming(found: Hardened, tests: dict[str, Recorded], groups: np.ndarray) -> list[dict[str, Any]]:
    """How many generations are stopped, at which step in the median, and how many of the stopped ones by step 8."""
    rows = []
    for name, one in tests.items():
        places = found.stream.stops(found.looks.place_errors(one.states))
        stops = found.looks.steps_of(places, one.last.shape[1])
        kinds = {name: np.ones(len(stops), dtype=bool)}
        if name in ("test_attacks", "control_wrapped"):
            own = one.table["attack"].to_numpy(dtype=str)
            kinds |= {f"{name}/{attack}": own == attack for attack in dict.fromkeys(own)}
        for kind, members in kinds.items():
            stopped = stops[members & (stops > 0)]
            rows.append(
                {"set": kind, "alpha": found.stream.alpha, "stopped": share(stops[members] > 0)}
                | {"median_step": float(np.median(stopped)) if len(stopped) else None}
                | {"of_stopped_by_step_8": share(stopped <= EARLY)}
            )
    return rows


def share(hits: np.ndarray) -> dict[str, Any]:
    """A share with its count and 95% interval; its value is None where there is nothing to count."""
    return vars(wilson(int(hits.sum()), len(hits))) | ({} if len(hits) else {"value": None})


if __name__ == "__main__":
    main()
