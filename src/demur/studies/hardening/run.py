"""`harden`: from a model to a probe guard that has seen both labels in every wrapper, and what it is worth.

In: a model. Out: one folder with the recordings of the shipped material, the guards, and a table of false positives by
kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from demur.models import Layer, Model
from demur.models.parallel import require_one_process
from demur.prompts import Prompt
from demur.prompts.options import LABELS
from demur.samplers import Sampler
from demur.studies.hardening.choices import check_choices, default_layers, kept_as
from demur.studies.hardening.fitted import Hardened, fit_hardened
from demur.studies.hardening.recorded import read_material, record_sets, sets_of
from demur.studies.material import OWN, OWN_FITTED, ROUNDS
from demur.studies.study.controls import fitting


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
    also: Sequence[Prompt] = (),
    keep: Literal["phi", "looks"] = "phi",
    window: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    resume: bool = True,
    progress: bool | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Hardened:
    """Record the shipped material, fit a `ProbeGuard` and the streaming guard on its looks, and save them.

    rounds : how much of the material is used, 1 to 8; a round is 280 generations.
    leave_out : kinds of prompts, wrappers or families of wrappers that are neither fitted nor calibrated on.
    layers : by default from a quarter of the depth to the last, an eighth apart.
    longest : prompts of more tokens, the chat format included, are left out of all rounds but the first. They take most
        of the time: of 262 prompts the longest 64 took two thirds of it with a model of 0.5 billion parameters.
    with_rest : record what is in no round as well: short requests, and harmless tasks of which a third is held out;
        753 generations.
    calibration : harmless prompts of your own, at least 20. They set the limits, in place of the shipped plain ones:
        the promise then holds for prompts like these.
    also : harmless and harmful prompts of your own, labelled. They are fitted on besides the material, at most 1,200 of
        each label; half of the harmless ones are held out and set the limits, with `calibration` where that is given.
    keep : "phi", to judge at shares of the steps; or "looks", to judge answers of any length, up to as many tokens as
        the sampler has steps, at the looks of `demur.looks`. window : of looks, over how many of the latest tokens the
        second mean is, by default 64.
    by_kind : set the limit so that its promise holds for every kind of held-out harmless prompts by itself; by
        default for plain ones.
    """
    kinds = check_choices(rounds, leave_out, by_kind, calibration, also, quantile=quantile, longest=longest)
    kept = kept_as(keep, window)
    require_one_process(model, "demur harden")
    out = Path(out)
    chosen_layers = default_layers(model) if layers is None else layers
    made = sampler or model.default_sampler(steps=32, seed=seed)
    every = sets_of(model, made, rounds, seed, longest=longest, with_rest=with_rest, say=say)
    labelled = {label: [prompt for prompt in also if prompt.label == label] for label in LABELS}
    own = {OWN: calibration} | {f"{OWN_FITTED}-{label}": prompts for label, prompts in labelled.items()}
    every |= {name: fitting(model, made, prompts) for name, prompts in own.items() if prompts}
    arguments: dict[str, Any] = {"layers": chosen_layers, "batch_size": batch_size, "resume": resume, **kept}
    recordings = record_sets(model, made, every, out, say=say, progress=progress, **arguments)
    named = dict(zip(every, recordings, strict=True))
    fitted = {label: named[name] for label in LABELS if (name := f"{OWN_FITTED}-{label}") in named}
    shipped = [one for name, one in named.items() if name not in own]
    material = read_material(shipped, seed, named.get(OWN), fitted=fitted)
    found = fit_hardened(material, kinds, quantile=quantile, by_kind=by_kind, say=say)
    found.save(out)
    return found
