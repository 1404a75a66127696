"""`run_study`: the main job, from a model and a folder of prompts to a `Study`.

In: prompt files named as in `PROMPT_SETS`. Out: recordings, anchors, guard and tables in one folder. Every part
resumes: what is recorded already is read, and what is cheap is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from demur.files.listed import FILES, hashes_of
from demur.files.locking import locked
from demur.files.staging import switched
from demur.guards.inputs import require_share
from demur.judges import Judge
from demur.models import Layer, Model
from demur.models.parallel import require_one_process
from demur.prompts import ReadOptions
from demur.recording import Recording, record
from demur.recording.arguments import as_model, chosen_sampler, layer_indices
from demur.recording.engine import Engine
from demur.recording.progress import planned
from demur.samplers import Sampler
from demur.studies.material import ROUNDS
from demur.studies.study.analysis import analyse
from demur.studies.study.checked import LEFT_OUT, checked
from demur.studies.study.controls import PREFIX, fitting_sets
from demur.studies.study.hardened import Hardening
from demur.studies.study.made import anchored_by
from demur.studies.study.prompt_sets import read_sets, require_anchor_prompts, require_calibration_prompts
from demur.studies.study.results import SETTINGS, Study

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LAYERS: tuple[Layer, ...] = ("quarter", "middle", "last")


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
    engine: Engine | None = None,
    seed: int = 0,
    resume: bool = True,
    check: bool = True,
    progress: bool | None = None,
    read: ReadOptions | None = None,
    harden: bool = False,
    harden_rounds: int = ROUNDS,
    harden_longest: int | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Study:
    """Record every prompt set, fit anchors and guard, and measure.

    model : or its name, which is loaded, or a transformers network with its `tokenizer`.
    prompts : folder with the files of `PROMPT_SETS` as .jsonl, .csv, .tsv or .parquet; see `read_sets`.
    layers : whose states are kept; signal and guard read the highest.
    limit : use the first `limit` prompts of each set, of test_attacks the first `limit` of each attack.
    judge : of the texts; by default the dictionary's, which gives HRR and FRR but no ASR.
    engine : what generates in place of demur's own loop; see `record`.
    check : run the quick check of `demur.check` first and stop where it fails; its result is in `Study.settings`.
    read : how the columns and labels of the prompt files are to be read, where they are not demur's.
    harden : record `harden_rounds` rounds of the shipped material too, fit a probe guard and a streaming guard on it as
        `demur.studies.harden` does, and on the study's own plain prompts, and compare them with the other guards. All
        recordings then hold their layers as well; the study's own guards read `layers` all the same.
    harden_longest : see `longest` of `harden`.
    say : called with a line of news after every part.

    Raises `InputError` where a set is missing or malformed, before anything is generated; where the model
    refuses too few harmful prompts for an anchor, before the other sets are generated.
    """
    require_share("quantile", quantile, 0.99)
    out = Path(out)
    sets = read_sets(Path(prompts), limit, read)
    require_anchor_prompts(sets, limit)
    require_calibration_prompts(sets, limit)
    model = as_model(model, tokenizer)
    require_one_process(model, "a study")
    sampler = chosen_sampler(model, sampler, steps, None if sampler is not None else seed)
    controls = {name: prompts for name, prompts in sets.items() if name.startswith(PREFIX)}
    sets |= fitting_sets(model, sampler, controls, say)
    sets = {name: prompts for name, prompts in sets.items() if prompts}
    own = layer_indices(model, layers)
    hardening = Hardening.of(model, sampler, harden_rounds, seed, sets, say, longest=harden_longest) if harden else None
    indices = sorted({*own, *hardening.layers}) if hardening else own
    recorded: dict[str, Any] = {"batch_size": batch_size, "engine": engine, "resume": resume, "progress": progress}
    recordings: dict[str, Recording] = {}

    def record_set(name: str) -> Recording:
        folder = out / "recordings" / name
        recordings[name] = record(
            model,
            sets.pop(name),  # which nobody needs once they are recorded
            sampler,
            layers=indices,
            out=folder,
            **recorded,
        )
        refused = recordings[name].table["refused"]
        say(f"{name}: {len(refused)} prompts, {int(refused.sum())} refused")
        return recordings[name]

    with locked(out), planned(sum(map(len, sets.values())) + (hardening.count if hardening else 0)):
        proof = checked(model, out, resume=resume, say=say) if check else LEFT_OUT
        anchored = anchored_by(record_set("anchors_harmless"), record_set("anchors_harmful"), own)
        for name in list(sets):
            record_set(name)
        hardened = None
        if hardening:
            hardened = hardening.fit(model, sampler, out, recordings, quantile=quantile, say=say, **recorded)
        say("guards, rates and tables")
        with switched(out, SETTINGS) as new:  # guards, anchors and tables of one study, or those of the one before
            anchored.anchors.save(new / "anchors.safetensors")
            study = analyse(recordings, anchored, quantile=quantile, judge=judge, seed=seed, out=new, hardened=hardened)
            settings = {**study.settings, "limit": limit, "check": proof, FILES: hashes_of(new)}
            study = replace(study, settings=settings, path=out)
            study.save(new)
    return study
