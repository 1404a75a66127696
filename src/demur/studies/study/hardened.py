"""The guards that a study fits on the shipped material as well: recorded beside its own sets, compared with the others.

In: a model, and what the study has recorded. Out: `Hardened`, as `demur harden` finds it, and detectors that stand
behind the study's own. What is fitted is said in `demur.studies.hardening`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
)
from demur.studies.material import OWN
from demur.studies.study.derivers import Derived
from demur.studies.study.detection import Detector
from demur.studies.study.detectors import Compared
from demur.studies.study.directions import CALIBRATION, Directions
from demur.studies.study.fewer import few

if TYPE_CHECKING:
    import pandas as pd

HARDENED, STREAMING_HARDENED = "Hardened Probe Guard", "Streaming Guard on the hardened probe"
FOLDER = "hardening"
"""Where the material is recorded in a study's folder; also the name of its table and of its settings."""


@dataclass(frozen=True)
class Hardening:
    """The material that a study is to record besides its own sets.

    sets : prompts by the name of their recording. layers : those that the guards read. kinds : those fitted on. rounds,
    seed : of the material.
    """

    sets: dict[str, list[Prompt]]
    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    rounds: int
    seed: int

    @classmethod
    def of(cls, model: Model, sampler: Sampler, rounds: int, seed: int, calibration: Sequence[Prompt]) -> Hardening:
        """What `rounds` of the material take; `InputError` for rounds or calibration prompts that do not do."""
        kinds = check_choices(rounds, (), calibration=calibration)
        return cls(sets_of(model, sampler, rounds, seed), default_layers(model), kinds, rounds, seed)

    @property
    def count(self) -> int:
        """How many prompts these are."""
        return sum(map(len, self.sets.values()))

    def fit(
        self,
        model: Model,
        sampler: Sampler,
        out: Path,
        calibration: Recording,
        *,
        quantile: float,
        say: Callable[[str], None],
        **options: Any,
    ) -> Hardened:
        """Record what is not there yet in ``out/hardening``, and fit; the study's own prompts set the limits.

        options : further ones of `record`.
        """
        recordings = record_sets(model, sampler, self.sets, out / FOLDER, layers=self.layers, say=say, **options)
        found = read_material(recordings, self.seed, calibration)
        hardened = fit_hardened(found, self.kinds, quantile=quantile, say=say)
        return replace(hardened, settings={"rounds": self.rounds, **hardened.settings})


def probe_of(hardened: Hardened) -> Directions:
    """The guards as what errors are derived with."""
    return Directions(hardened.guard, hardened.looks, "probe")


def with_hardened(compared: Compared, hardened: Hardened, derived: Derived) -> Compared:
    """The study's detectors, stops and guards with those of the hardened guards behind them."""
    looks = np.concatenate([np.asarray(one) for one in derived.probe_looks.values()])
    steps = next(iter(derived.signals.values())).shape[1]
    detectors = [
        Detector(HARDENED, np.concatenate(list(derived.probe_errors.values())), hardened.guard.threshold_),
        Detector(STREAMING_HARDENED, hardened.stream.errors(looks), hardened.stream.threshold_),
    ]
    stops = hardened.looks.steps_of(hardened.stream.stops(looks), steps)
    guards: dict[str, Guard] = {GUARD_FILE: hardened.guard, LOOKS_FILE: hardened.looks, STREAMING_FILE: hardened.stream}
    return replace(
        compared,
        detectors=[*compared.detectors, *detectors],
        stops={**compared.stops, STREAMING_HARDENED: (hardened.stream.alpha, stops)},
        guards={**compared.guards, **guards},
    )


def under_rule(hardened: Hardened, derived: Derived, at_least: int, of_last: int, steps: int) -> np.ndarray:
    """The steps at which generations are stopped under another rule, 0 for never, in the order of the study's sets.

    The rule counts looks. It is calibrated on the prompts that set the limit of the study's hardened guards.
    """
    guard: StreamingGuard = deepcopy(hardened.stream).set_params(at_least=at_least, of_last=of_last)
    guard.calibrate(few(derived.probe_looks[CALIBRATION]))
    looks = np.concatenate([np.asarray(one) for one in derived.probe_looks.values()])
    return hardened.looks.steps_of(guard.stops(looks), steps)


def told(hardened: Hardened, attacks: Sequence[str]) -> dict[str, Any]:
    """What a study keeps of it: the settings of `demur harden`, and for each of its attacks the kinds that resemble it.

    An attack that demur does not know is left out of `resembling`: nothing is said of it.
    """
    kinds = [kind for kind in hardened.settings["kinds"] if kind != OWN]
    known = {attack: resembling(attack) for attack in attacks}
    resembled = {
        attack: [kind for kind in found if kind in kinds] for attack, found in known.items() if found is not None
    }
    return {**hardened.settings, "kinds": kinds, "resembling": resembled}


def by_kind(hardened: Hardened) -> pd.DataFrame:
    """The false positives on held-out prompts of the material; the study's own prompts by the name of their set."""
    rows = hardened.false_positives
    return rows.assign(kind=rows["kind"].replace(OWN, CALIBRATION))
