"""`harden`: from a model to a probe guard that has seen both labels in every wrapper, and what it is worth.

In: a model. Out: one folder with the recordings of the shipped material, the guards, and a table of false positives by
kind. Every round is a recording of its own, so a run resumes, and goes on with more rounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from demur.dynamics import FIELDS, wilson
from demur.errors import InputError
from demur.files.listed import FILES, hashes_of
from demur.files.manifests import write_manifest
from demur.files.staging import switched
from demur.files.tables import write_table
from demur.guards import ProbeGuard, StreamingGuard, states_of
from demur.guards.calibration import MINIMUM_CALIBRATION, warned_already
from demur.guards.places import Places
from demur.hardening import ATTACK_NAMES, WRAPPERS, resembling
from demur.looks import WINDOW, Looks
from demur.models import Layer, Model
from demur.prompts import Prompt
from demur.recording import Recording, record
from demur.recording.derived import derive
from demur.recording.progress import planned
from demur.samplers import Sampler
from demur.signal import Signal
from demur.studies.material import (
    HELD_OUT,
    OWN,
    PLAIN,
    ROUNDS,
    TASKS,
    WRAPPED,
    family_of,
    kind_of,
    kinds_left,
    material,
    rest,
    tasks,
)
from demur.studies.study.controls import fitting
from demur.studies.study.directions import LOOKS as EIGHTHS
from demur.studies.study.directions import placed, states_deriver
from demur.studies.study.fewer import fewer

if TYPE_CHECKING:
    import pandas as pd

EARLY = (1 / 32, 1 / 16)
"""Looks at the first tokens, whose states are still much the prompt's: there probes carry over best to new wrappers."""

LOOKS = (*EARLY, *EIGHTHS)
"""The looks at which generations are watched."""

JUDGED_AT = (*EARLY, 0.125, 0.5, 1.0)
"""The looks at which whole generations are judged."""

OWN_STATES = "hardening_states"
"""What the derived states of prompts of one's own are called."""

CHOICES = (0.01, 0.03, 0.1, 0.3, 1.0)
"""The regularisations to choose among."""

LIMITING = (PLAIN, TASKS)
"""The kinds of held-out prompts that set limits, where there are no others to do so and kinds have no limits each."""

GUARD_FILE, LOOKS_FILE, STREAMING_FILE = (
    f"{name}.safetensors" for name in ("probe_guard", "probe_looks", "streaming_probe_guard")
)
TABLE_FILE, SETTINGS_FILE = "false_positives.parquet", "harden.json"


@dataclass(frozen=True)
class Material:
    """States of the shipped prompts, `[prompts, places, layers, width]`, and what each prompt is.

    table : a row a prompt with kind, family, harmful and held_out. places : where the states were taken: at `LOOKS`,
    or at the looks of whole answers.
    """

    states: Signal
    table: pd.DataFrame
    places: Places = LOOKS

    def chosen(self, rows: np.ndarray, places: Places | None = None) -> Signal:
        """The states of some prompts, at some of the places; of whole answers always at all."""
        from demur.guards import states_among

        if isinstance(self.places, Looks):
            lengths = self.states.lengths
            assert lengths is not None  # looks are of answers that have some
            return Signal(np.asarray(self.states)[rows], self.states.provenance, lengths[rows])
        places = LOOKS if places is None else places
        assert not isinstance(places, Looks)
        return states_among(Signal(np.asarray(self.states)[rows], self.states.provenance), LOOKS, places)


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


def harden(
    model: Model,
    out: str | Path,
    *,
    rounds: int = ROUNDS,
    leave_out: Sequence[str] = (),
    layers: Sequence[Layer] | None = None,
    quantile: float = 0.985,
    by_kind: bool = False,
    sampler: Sampler | None = None,
    longest: int | None = None,
    with_rest: bool = True,
    calibration: Sequence[Prompt] = (),
    keep: Literal["phi", "looks"] = "phi",
    window: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    resume: bool = True,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Hardened:
    """Record the shipped material, fit a `ProbeGuard` and the streaming guard on its looks, and save them.

    rounds : how much of the material is used, 1 to 8; a round is about 260 generations.
    leave_out : kinds of prompts, wrappers or families of wrappers that are neither fitted nor calibrated on.
    layers : by default from a quarter of the depth to the last, an eighth apart.
    longest : prompts of more tokens, the chat format included, are left out of all rounds but the first. They take most
        of the time: of 262 prompts the longest 64 took two thirds of it with a model of 0.5 billion parameters.
    with_rest : record what is in no round as well: short requests, and harmless tasks of which a third is held out;
        753 generations.
    calibration : harmless prompts of your own, at least 20. They set the limits, in place of the shipped plain ones:
        the promise then holds for prompts like these.
    keep : "phi", to judge at shares of the steps; or "looks", to judge answers of any length, up to as many tokens as
        the sampler has steps, at the looks of `demur.looks`. window : of looks, over how many of the latest tokens the
        second mean is, by default 64.
    by_kind : set the limit so that its promise holds for every kind of held-out harmless prompts by itself; by
        default for plain ones.
    """
    kinds = check_choices(rounds, leave_out, by_kind, calibration)
    kept = kept_as(keep, window)
    out = Path(out)
    chosen_layers = default_layers(model) if layers is None else layers
    made = sampler or model.default_sampler(steps=32, seed=seed)
    every = sets_of(model, made, rounds, seed, longest=longest, with_rest=with_rest)
    if calibration:
        every[OWN] = fitting(model, made, calibration)
    arguments: dict[str, Any] = {"layers": chosen_layers, "batch_size": batch_size, "resume": resume, **kept}
    recordings = record_sets(model, made, every, out, say=say, progress=progress, **arguments)
    own = recordings.pop() if calibration else None
    found = fit_hardened(read_material(recordings, seed, own), kinds, quantile=quantile, by_kind=by_kind, say=say)
    found.save(out)
    return found


def sets_of(
    model: Model,
    sampler: Sampler,
    rounds: int,
    seed: int = 0,
    *,
    longest: int | None = None,
    with_rest: bool = True,
) -> dict[str, list[Prompt]]:
    """The prompts of the material that fit the model's context, by the name of their recording; see `harden`."""
    every = {f"round-{number + 1}": prompts_of(number, seed)[0] for number in range(rounds)}
    if longest is not None:
        for name in list(every)[1:]:
            every[name] = [prompt for prompt in every[name] if _tokens(model, prompt) <= longest]
    if with_rest:
        every |= {"rest": rest(seed), TASKS: [prompt for part in tasks(seed) for prompt in part]}
    return {name: fitting(model, sampler, prompts) for name, prompts in every.items()}


def record_sets(
    model: Model,
    sampler: Sampler,
    every: Mapping[str, Sequence[Prompt]],
    out: Path,
    *,
    say: Callable[[str], None] = lambda line: None,
    **options: Any,
) -> list[Recording]:
    """A recording of each, in ``out/recordings``; those that are there are read. options : further ones of `record`."""
    recordings = []
    with planned(sum(map(len, every.values()))):
        for name, prompts in every.items():
            recordings.append(record(model, prompts, sampler, out=out / "recordings" / name, **options))
            say(f"{name}: {len(recordings[-1])} prompts")
    return recordings


def kept_as(keep: str, window: int | None) -> dict[str, Any]:
    """Arguments of `record`; `InputError` for what guards are not fitted on, and for a window that nothing has."""
    if keep not in ("phi", "looks"):
        raise InputError(f"keep is {keep!r}; give phi or looks")
    if keep == "phi":
        if window is not None:
            raise InputError("a window is for keep='looks' (--keep looks); give that too")
        return {}
    Looks((1,), WINDOW if window is None else window)
    return {"keep": "looks", "window": WINDOW if window is None else window}


def _tokens(model: Model, prompt: Prompt) -> int:
    return len(model.encode(prompt.prompt or "", prompt.turns))


def check_choices(
    rounds: int, leave_out: Sequence[str], by_kind: bool = False, calibration: Sequence[Prompt] = ()
) -> tuple[str, ...]:
    """The kinds that are left; `InputError` for kinds that are unknown, too few prompts, and rounds that do not fit."""
    if not 1 <= rounds <= ROUNDS:
        raise InputError(f"rounds is {rounds}; expected 1 to {ROUNDS}")
    kinds = kinds_left(leave_out)
    if calibration:
        harmful = next((prompt.id for prompt in calibration if prompt.label == "harmful"), None)
        if harmful is not None:
            raise InputError(f"prompt {harmful!r} to calibrate on is labelled harmful; give harmless ones only")
        if len(calibration) < MINIMUM_CALIBRATION:
            raise InputError(
                f"{len(calibration)} prompts to calibrate on are too few; give {MINIMUM_CALIBRATION} or more"
            )
        kinds = (*kinds, OWN)
    fewest = min(count for kind, count in HELD_OUT.items() if kind in (*kinds, WRAPPED))
    if by_kind and rounds * fewest < MINIMUM_CALIBRATION:
        raise InputError(
            f"--by-kind needs {-(-MINIMUM_CALIBRATION // fewest)} rounds, for {MINIMUM_CALIBRATION} held-out prompts "
            f"of every kind, and rounds is {rounds}; give more, or leave the kinds with few prompts out"
        )
    return kinds


def default_layers(model: Model) -> tuple[int, ...]:
    """From a quarter of the depth to the last, an eighth apart."""
    count = model.layer_count
    return tuple(dict.fromkeys(max(1, round(count * eighth / 8)) for eighth in range(2, 9)))


def prompts_of(number: int, seed: int) -> tuple[list[Prompt], set[str]]:
    """The prompts of a round, and the ids of those that are held out."""
    fitted, held_out = material(number, seed)
    return [*fitted, *held_out], {prompt.id for prompt in held_out}


def read_material(recordings: Sequence[Recording], seed: int = 0, own: Recording | None = None) -> Material:
    """The states and kinds of recorded rounds, of the rest and of the tasks, and of prompts of one's own."""
    import pandas as pd

    held_out = set().union(*(prompts_of(number, seed)[1] for number in range(ROUNDS)))
    held_out |= {prompt.id for prompt in tasks(seed)[1]}
    tables = [
        _told(recording.table).assign(held_out=lambda rows: rows["id"].isin(held_out)) for recording in recordings
    ]
    places: Places = recordings[0].looks or LOOKS
    states = [states_of(recording, places) for recording in recordings]
    if own is not None and isinstance(places, Looks):
        states.append(states_of(own, places))
        tables.append(_told(own.table).assign(kind=OWN, family=OWN, held_out=True))
    elif own is not None:  # of a study it may hold further layers, and very many prompts
        layers, rows = recordings[0].layers, fewer(len(own))
        deriver = replace(states_deriver(own, layers, LOOKS), name=OWN_STATES)  # beside the study's, at other places
        states.append(placed(derive(own, [deriver])[OWN_STATES], own, layers, LOOKS))
        tables.append(_told(own.table.iloc[rows]).assign(kind=OWN, family=OWN, held_out=True))
    joined = np.concatenate([np.asarray(one) for one in states])
    lengths = np.concatenate([one.lengths for one in states]) if isinstance(places, Looks) else None
    return Material(Signal(joined, states[0].provenance, lengths), pd.concat(tables, ignore_index=True), places)


def _told(rows: pd.DataFrame) -> pd.DataFrame:
    """What each recorded prompt of the material is: id, kind, family and harmful."""
    kinds = [kind_of(*pair) for pair in zip(rows["attack"], rows["category"], strict=True)]
    harmful = rows["label"].eq("harmful").fillna(False).astype(bool)
    return rows[["id"]].assign(kind=kinds, family=[family_of(kind) for kind in kinds], harmful=harmful)


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
    chosen = (OWN,) if OWN in kinds else LIMITING
    limiting = held_out if by_kind else held_out & table["kind"].isin(chosen).to_numpy()
    harmful, families = table["harmful"].to_numpy()[used], table["family"].to_numpy(dtype=str)[used]
    whole = isinstance(found.places, Looks)
    guard = ProbeGuard(quantile, places=found.places if whole else JUDGED_AT, C=choices, joint=True)
    guard.fit(found.chosen(used, guard.places), harmful, groups=families)
    say(f"C = {guard.C_:g} of {', '.join(f'{choice:g}' for choice in choices)}")
    looks = guard
    if not whole:
        looks = ProbeGuard(quantile, places=LOOKS, C=guard.C_, joint=True)
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
