"""The guards that a study fits on the shipped material as well: recorded beside its own sets, compared with the others.

In: a model, and what the study has recorded. Out: `Hardened`, as `demur harden` finds it, and detectors that stand
behind the study's own. What is fitted is said in `demur.studies.hardening`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.guards import StreamingGuard
from demur.guards.base import Guard
from demur.hardening import resembling
from demur.models import Model
from demur.prompts import Prompt
from demur.recording import Recording
from demur.samplers import Sampler
from demur.studies.hardening import (
    GUARD_FILE,
    LOOKS_FILE,
    STREAMING_FILE,
    Hardened,
    check_choices,
    default_layers,
    fit_hardened,
    read_material,
    record_sets,
    sets_of,
    to_fit,
)
from demur.studies.material import OWN, OWN_FITTED
from demur.studies.study.derivers import Derived
from demur.studies.study.detection import Detector
from demur.studies.study.detectors import Compared
from demur.studies.study.directions import CALIBRATION, TRAIN, Directions
from demur.studies.study.fewer import few

if TYPE_CHECKING:
    import pandas as pd

HARDENED, STREAMING_HARDENED = "Hardened Probe Guard", "Streaming Guard on the hardened probe"
FOLDER = "hardening"
"""Where the material is recorded in a study's folder; also the name of its table and of its settings."""

FITTED = {"harmless": TRAIN, "harmful": "anchors_harmful"}
"""The study's own prompts that the guards are fitted on besides the material, by their label."""

OWN_NAMES = {OWN: CALIBRATION, OWN_FITTED: TRAIN}
"""The kinds of the study's own prompts, and the sets they are from."""

Stops = dict[str, tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Hardening:
    """The material that a study is to record besides its own sets.

    sets : prompts by the name of their recording. layers : those that the guards read. kinds : those fitted on.
    attacks : of the study; where kinds resemble one, guards are fitted without them too. rounds, seed : of the
    material.
    """

    sets: dict[str, list[Prompt]]
    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    attacks: tuple[str, ...]
    rounds: int
    seed: int

    @classmethod
    def of(
        cls,
        model: Model,
        sampler: Sampler,
        rounds: int,
        seed: int,
        sets: Mapping[str, Sequence[Prompt]],
        say: Callable[[str], None],
        *,
        longest: int | None = None,
    ) -> Hardening:
        """What `rounds` of the material take; `InputError` for rounds or calibration prompts that do not do.

        sets : those of the study. longest : see `harden`.
        """
        kinds = (*check_choices(rounds, (), calibration=sets[CALIBRATION], longest=longest), OWN_FITTED)
        attacks = tuple(dict.fromkeys(prompt.group for prompt in sets.get("test_attacks", ())))
        return cls(
            sets_of(model, sampler, rounds, seed, longest=longest, say=say),
            default_layers(model),
            kinds,
            attacks,
            rounds,
            seed,
        )

    @property
    def count(self) -> int:
        """How many prompts these are."""
        return sum(map(len, self.sets.values()))

    def fit(
        self,
        model: Model,
        sampler: Sampler,
        out: Path,
        own: Mapping[str, Recording],
        *,
        quantile: float,
        say: Callable[[str], None],
        **options: Any,
    ) -> Hardened:
        """Record what is not there yet in ``out/hardening``, and fit on it and on the study's own prompts.

        own : the study's recordings: the fit takes its plain harmless and harmful ones, half of the
            harmless ones and the calibration set the limits.
        options : further ones of `record`.
        """
        recordings = record_sets(model, sampler, self.sets, out / FOLDER, layers=self.layers, say=say, **options)
        found = read_material(
            recordings, self.seed, own[CALIBRATION], fitted={label: own[name] for label, name in FITTED.items()}
        )
        hardened = fit_hardened(found, self.kinds, quantile=quantile, say=say)
        resembled = resembled_by(self.attacks, self.kinds)
        without = {}
        for kinds in dict.fromkeys(tuple(kinds) for kinds in resembled.values() if kinds):
            say(f"the same without {', '.join(kinds)}")
            left = [kind for kind in self.kinds if kind not in kinds]
            without[kinds] = fit_hardened(found, left, quantile=quantile, choices=(hardened.guard.C_,))
        kept = [kind for kind in self.kinds if kind not in OWN_NAMES]
        own_fitted = (found.table["kind"] == OWN_FITTED) & ~found.table["held_out"]
        settings = {"rounds": self.rounds, **hardened.settings, "kinds": kept, "resembling": resembled}
        settings["own_fitted_on"] = int(own_fitted.sum())
        return replace(hardened, settings=settings, without=without)


def resembled_by(attacks: Sequence[str], kinds: Sequence[str]) -> dict[str, list[str]]:
    """For each attack that demur knows, those of the kinds that resemble it; nothing is said of other attacks."""
    known = {attack: resembling(attack) for attack in attacks}
    return {attack: [kind for kind in found if kind in kinds] for attack, found in known.items() if found is not None}


def probes_of(hardened: Hardened) -> list[Directions]:
    """The guards as what errors are derived with, those without some kinds behind the others, in their order."""
    every = {"probe": hardened} | {name_of(hardened, kinds): one for kinds, one in hardened.without.items()}
    return [Directions(one.guard, one.looks, name) for name, one in every.items()]


def name_of(hardened: Hardened, kinds: Sequence[str]) -> str:
    """What the errors of the guards without these kinds are called."""
    return f"probe_without_{list(hardened.without).index(tuple(kinds))}"


def judged_by(hardened: Hardened, derived: Derived, name: str = "probe") -> tuple[list[Detector], Stops]:
    """Detectors and stops of hardened guards, whose errors are called `name`."""
    looks = np.concatenate([np.asarray(one) for one in derived.probe_looks[name].values()])
    steps = next(iter(derived.signals.values())).shape[1]
    detectors = [
        Detector(HARDENED, np.concatenate(list(derived.probe_errors[name].values())), hardened.guard.threshold_),
        Detector(STREAMING_HARDENED, hardened.stream.errors(looks), hardened.stream.threshold_),
    ]
    stops = hardened.looks.steps_of(hardened.stream.stops(looks), steps)
    return detectors, {STREAMING_HARDENED: (hardened.stream.alpha, stops)}


def with_hardened(compared: Compared, hardened: Hardened, derived: Derived) -> Compared:
    """The study's detectors, stops and guards with those of the hardened guards behind them."""
    detectors, stops = judged_by(hardened, derived)
    guards: dict[str, Guard] = {GUARD_FILE: hardened.guard, LOOKS_FILE: hardened.looks, STREAMING_FILE: hardened.stream}
    return replace(
        compared,
        detectors=[*compared.detectors, *detectors],
        stops={**compared.stops, **stops},
        guards={**compared.guards, **guards},
    )


def under_rule(hardened: Hardened, derived: Derived, at_least: int, of_last: int, steps: int) -> np.ndarray:
    """The steps at which generations are stopped under another rule, 0 for never, in the order of the study's sets.

    The rule counts looks. It is calibrated on the prompts that set the limit of the study's hardened guards.
    """
    guard: StreamingGuard = deepcopy(hardened.stream).set_params(at_least=at_least, of_last=of_last)
    seen = derived.probe_looks["probe"]
    train = np.asarray(few(seen[TRAIN]))
    guard.calibrate(np.concatenate([np.delete(train, to_fit(len(train)), axis=0), few(seen[CALIBRATION])]))
    looks = np.concatenate([np.asarray(one) for one in seen.values()])
    return hardened.looks.steps_of(guard.stops(looks), steps)


def by_kind(hardened: Hardened) -> pd.DataFrame:
    """The false positives on held-out prompts, in the study's names of detectors and of its own sets."""
    rows = hardened.false_positives
    names = dict(zip(rows["detector"].unique(), (HARDENED, STREAMING_HARDENED), strict=True))
    return rows.assign(detector=rows["detector"].map(names), kind=rows["kind"].replace(OWN_NAMES))
