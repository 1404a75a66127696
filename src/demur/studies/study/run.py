"""`run_study`: the main job, from a model and a folder of prompts to a `Study`.

In: prompt files named as in `PROMPT_SETS`. Out: recordings, anchors, guard and tables in one folder. Every part
resumes: what is recorded already is read, and what is cheap is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from demur.bundled import bundled_prompts, is_bundled
from demur.errors import InputError
from demur.files.locking import locked
from demur.files.staging import switched
from demur.guards import SRIGuard
from demur.judges import CompliesJudge, Judge
from demur.models import Layer, Model
from demur.prompts import Prompt, ReadOptions, read_prompts
from demur.recording import Recording, record
from demur.recording.arguments import as_model, chosen_sampler
from demur.recording.progress import planned
from demur.samplers import Sampler
from demur.signal import Anchors
from demur.studies.study.checked import LEFT_OUT, checked
from demur.studies.study.controls import (
    PREFIX,
    WRAPPED,
    bundled_controls,
    control_table,
    correlation_table,
    fitting,
    wrapped,
)
from demur.studies.study.derivers import derived_from
from demur.studies.study.derivers import text_signals as text_signals
from demur.studies.study.detection import detection_table, false_positive_table
from demur.studies.study.detectors import detectors_of, fit_guard
from demur.studies.study.made import Anchored, Made, anchored_by
from demur.studies.study.projection import projection_table
from demur.studies.study.rates import rate_table
from demur.studies.study.recovery import judged_rates
from demur.studies.study.results import PROMPT_SETS, SETTINGS, Study
from demur.studies.study.streaming import streaming_table

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPTIONAL_SETS = ("test_attacks",)
FEWEST_FOR_ANCHORS = 8
LAYERS: tuple[Layer, ...] = ("quarter", "middle", "last")
ENDINGS = (".jsonl", ".csv", ".tsv", ".parquet")
COLUMNS = ["id", "group", "label", "attack", "goal", "category", "prompt", "text", "refused", "tokens"]
COLUMNS += ["prompt_tokens", "seconds"]


def run_study(
    model: Model | str | Path | torch.nn.Module,
    prompts: str | Path,
    out: str | Path,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    sampler: Sampler | None = None,
    steps: int | None = None,
    layers: Sequence[Layer] = LAYERS,
    batch_size: int = 16,
    limit: int | None = None,
    quantile: float = 0.99,
    judge: Judge | None = None,
    seed: int = 0,
    resume: bool = True,
    check: bool = True,
    progress: bool | None = None,
    read: ReadOptions | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Study:
    """Record every prompt set, fit anchors and guard, and measure.

    model : or its name, which is loaded, or a transformers network with its `tokenizer`.
    prompts : folder with the files of `PROMPT_SETS` as .jsonl, .csv, .tsv or .parquet; see `read_sets`.
    layers : whose states are kept; signal and guard read the highest.
    limit : use the first `limit` prompts of each set, of test_attacks the first `limit` of each attack.
    judge : of the texts; by default the dictionary's, which gives HRR and FRR but no ASR.
    check : run the quick check of `demur.check` first and stop where it fails; its result is in `Study.settings`.
    read : how the columns and labels of the prompt files are to be read, where they are not demur's.
    say : called with a line of news after every part.

    Raises `InputError` where a set is missing or malformed, before anything is generated; where the model
    refuses too few harmful prompts for an anchor, before the other sets are generated.
    """
    out = Path(out)
    sets = read_sets(Path(prompts), limit, read)
    require_anchor_prompts(sets, limit)
    model = as_model(model, tokenizer)
    sampler = chosen_sampler(model, sampler, steps, None if sampler is not None else seed)
    for name in [name for name in sets if name.startswith(PREFIX)]:
        fit = fitting(model, sampler, sets[name])
        if len(fit) < len(sets[name]):
            say(f"{name}: {len(sets[name]) - len(fit)} of {len(sets[name])} prompts do not fit the context; left out")
        sets[name] = fit
    sets = {name: prompts for name, prompts in sets.items() if prompts}
    recordings: dict[str, Recording] = {}

    def record_set(name: str) -> Recording:
        folder = out / "recordings" / name
        recordings[name] = record(
            model,
            sets[name],
            sampler,
            layers=layers,
            batch_size=batch_size,
            out=folder,
            resume=resume,
            progress=progress,
        )
        refused = recordings[name].table["refused"]
        say(f"{name}: {len(refused)} prompts, {int(refused.sum())} refused")
        return recordings[name]

    with locked(out), planned(sum(map(len, sets.values()))):
        proof = checked(model, out, resume=resume, say=say) if check else LEFT_OUT
        anchored = anchored_by(record_set("anchors_harmless"), record_set("anchors_harmful"))
        for name in sets:
            if name not in recordings:
                record_set(name)
        say("guards, rates and tables")
        with switched(out, SETTINGS) as new:  # guards, anchors and tables of one study, or those of the one before
            anchored.anchors.save(new / "anchors.safetensors")
            study = analyse(recordings, anchored, quantile=quantile, judge=judge, seed=seed, out=new)
            study = replace(study, settings={**study.settings, "limit": limit, "check": proof}, path=out)
            study.save(new)
    return study


def analyse(
    recordings: dict[str, Recording],
    anchored: Anchored,
    *,
    quantile: float = 0.99,
    judge: Judge | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> Study:
    """All that follows from recordings and anchors: signals, guard, rates, detection, projection.

    recordings : by prompt set; each of their shards is read at most once. judge : as in `run_study`. out : folder to
        save the guards in, if any.
    """
    anchors = anchored.anchors
    kept = {name: recording for name, recording in recordings.items() if not name.startswith("anchors_")}
    derived = derived_from(kept, anchors)
    signals, texts = derived.signals, derived.texts
    guard = fit_guard(signals, quantile, seed)
    compared = detectors_of(
        guard, signals, texts, derived.features, derived.states, anchored.harmful, quantile=quantile, seed=seed
    )
    detectors = compared.detectors
    if out is not None:
        compared.save(out)
    sigma, text_sigma = (np.concatenate([np.asarray(one) for one in sets.values()]) for sets in (signals, texts))
    generations = pd.concat(
        [recording.table[COLUMNS].assign(set=name) for name, recording in kept.items()], ignore_index=True
    ).assign(
        answer_tokens=np.concatenate(list(derived.lengths.values())),
        final_signal=sigma[:, -1],
        mean_signal=sigma.mean(axis=1),
        guard_error=detectors[0].scores,
        flagged=detectors[0].scores > detectors[0].limit,
    )
    judge = judge or CompliesJudge()
    tested = [name for name in kept if name.startswith("test_")]
    judged, verdicts = judged_rates(
        [kept[name] for name in tested], judge, [derived.predicted[name] for name in tested]
    )
    rates = rate_table(generations, sigma)
    return Study(
        settings={**describe(recordings, anchors, guard, seed), "judge": {**judge.describe(), **verdicts}},
        generations=generations,
        scores=pd.DataFrame({detector.name: detector.scores for detector in detectors}),
        signals=sigma,
        text_signals=text_sigma,
        references=anchored.references,
        rates=pd.concat([rates, judged], ignore_index=True) if len(judged) else rates,
        detection=detection_table(detectors, generations),
        false_positives=false_positive_table(detectors, generations),
        controls=control_table(detectors, generations),
        correlations=correlation_table(detectors, generations),
        streaming=streaming_table(compared.stops, generations, sigma.shape[1]),
        projection=projection_table(sigma, generations),
        made=Made(recordings, anchors, compared.guards, compared.text_guard, derived.by_layer, texts),
    )


def read_sets(folder: Path, limit: int | None, read: ReadOptions | None = None) -> dict[str, list[Prompt]]:
    """The prompt sets of a study by name, from a folder or "demur/toy", and behind them the controls.

    Controls are the folder's own files ``control_NAME``, or else the bundled ones (none for the toy world, whose
    models know no other prompts); and, unless the folder brings them, harmless test prompts in the attacks' wrappers.
    Raises `InputError` naming every file missing.
    """
    toy = is_bundled(folder)
    if toy:
        folder = bundled_prompts(str(folder))[0].parent
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of prompt files; it should hold {', '.join(PROMPT_SETS)} as .jsonl")
    paths = {name: _file_of(folder, name) for name in PROMPT_SETS}
    missing = [name for name, path in paths.items() if path is None and name not in OPTIONAL_SETS]
    if missing:
        raise InputError(
            f"{folder}: lacks {', '.join(missing)}; expected a .jsonl, .csv, .tsv or .parquet file of each name"
        )
    sets = {name: _read(path, read) for name, path in paths.items() if path is not None}
    sets |= _controls_of(folder, read) or ({} if toy else bundled_controls())
    if WRAPPED not in sets and (enclosed := wrapped(sets.get("test_attacks", []), sets["test_harmless"])):
        sets[WRAPPED] = enclosed
    return {name: first_of_each(prompts, limit) for name, prompts in sets.items()}


def _controls_of(folder: Path, read: ReadOptions | None) -> dict[str, list[Prompt]]:
    paths = (path for path in sorted(folder.glob(f"{PREFIX}*")) if path.suffix in ENDINGS)
    return {path.stem: _read(path, read) for path in paths}


def _read(path: Path, read: ReadOptions | None) -> list[Prompt]:
    read = read or ReadOptions()
    return read_prompts(path, columns=read.columns, labels=read.labels, encoding=read.encoding)


def _file_of(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}{ending}" for ending in ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def require_anchor_prompts(sets: Mapping[str, Sequence[Prompt]], limit: int | None) -> None:
    """Refuse sets of fewer prompts than anchors need, before anything is generated."""
    for name in ("anchors_harmless", "anchors_harmful"):
        if len(sets[name]) < FEWEST_FOR_ANCHORS:
            cause = "give more" if limit is None or limit >= FEWEST_FOR_ANCHORS else f"--limit {limit} is too low"
            raise InputError(
                f"{name}: {len(sets[name])} prompts, and anchors need at least {FEWEST_FOR_ANCHORS} a side; {cause}"
            )


def example_set(name: str, sets: Mapping[str, Sequence[Prompt]], folder: Path) -> tuple[str, str]:
    """The set and the id of the prompt that `name` stands for: its id, or SET/ID where several sets hold that id."""
    tested = {one: {prompt.id for prompt in rows} for one, rows in sets.items() if not one.startswith("anchors_")}
    found = [one for one, ids in tested.items() if name in ids]
    member, _, identity = name.partition("/")
    if not found and identity in tested.get(member, ()):
        return member, identity
    if not found:
        raise InputError(f"--example {name!r} is the id of no prompt of {folder} besides the anchors'")
    if len(found) > 1:
        raise InputError(
            f"--example {name!r} is the id of prompts of {', '.join(found)}; name the set too, as in {found[0]}/{name}"
        )
    return found[0], name


def first_of_each(prompts: Sequence[Prompt], limit: int | None) -> list[Prompt]:
    """The first `limit` prompts of each group, in their order."""
    seen: dict[str, int] = {}
    kept = []
    for prompt in prompts:
        seen[prompt.group] = seen.get(prompt.group, 0) + 1
        if limit is None or seen[prompt.group] <= limit:
            kept.append(prompt)
    return kept


def describe(recordings: dict[str, Recording], anchors: Anchors, guard: SRIGuard, seed: int) -> dict[str, Any]:
    """What the study was made from and fitted to, as plain values."""
    made = recordings["anchors_harmless"].provenance
    return {
        "model": made.model,
        "fingerprint": made.fingerprint,
        "sampler": dict(made.sampler),
        "layers": list(made.layers),
        "chat_format": dict(made.chat_format),
        "versions": dict(made.versions),
        "counts": {name: len(recording) for name, recording in recordings.items()},
        "prompts": {name: recording.provenance.prompts for name, recording in recordings.items()},
        "anchors": {side: vars(count) for side, count in anchors.counts.items()},
        "guard": {
            "quantile": guard.quantile,
            "threshold": float(guard.threshold_),
            "n_calibration": guard.n_calibration_,
            "false_positive_low": guard.false_positive_low_,
            "false_positive_high": guard.false_positive_high_,
        },
        "tau": 0.1,
        "compliance": 0.5,
        "seed": seed,
    }
