"""`record`: prompts × model × sampler → `Recording`, kept on disk batch by batch.

In: what to generate. Out: a complete recording folder. The same call goes on where it stopped; a changed
input never mixes with what is there. Also `stream_anchors`, the same loop with nothing kept but sums.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from demur.errors import InputError
from demur.looks import WINDOW
from demur.models import Layer, Model
from demur.models.parallel import is_first, processes_of, require_one_process
from demur.prompts import Prompt, as_prompts, prompts_hash
from demur.provenance import Provenance, require_comparable
from demur.recording import folder as files
from demur.recording.arguments import as_model, chosen_sampler, layer_indices, require_kept, require_whole
from demur.recording.engine import Engine
from demur.recording.forcing import checked_responses, responses_hash
from demur.recording.generate import Batch, batches, encode, inputs_hash
from demur.recording.keeping import Kept, keep_all
from demur.recording.looked import Precision, described, look_arrays, require_precision
from demur.recording.parts import RUN_ROWS, part_manifest, rows_of_part
from demur.recording.progress import begin as begun
from demur.recording.recording import Recording
from demur.recording.together import keep_together
from demur.samplers import Sampler
from demur.signal import Anchors, AnchorSums

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Prompts = Sequence[Prompt | str | Mapping[str, Any]] | str | Path


def record(
    model: Model | str | Path | torch.nn.Module,
    prompts: Prompts,
    sampler: Sampler | None = None,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    responses: Sequence[str] | None = None,
    steps: int | None = None,
    layers: Sequence[Layer] | Layer = ("last",),
    batch_size: int = 16,
    out: str | Path | None = None,
    seed: int | None = None,
    keep: Literal["phi", "signal", "looks"] = "phi",
    anchors: Anchors | None = None,
    window: int = WINDOW,
    precision: Precision = "float32",
    engine: Engine | None = None,
    resume: bool = True,
    part: tuple[int, int] | None = None,
    progress: bool | None = None,
) -> Recording:
    """Generate for every prompt and record the pooled states of every step.

    model : or its name, which is loaded, or a transformers network with its `tokenizer`, which only prompts of
        token ids do without. prompts : a path, or a list of texts, rows or `Prompt`s.
    sampler : by default the model's own, with `steps` steps, 32 by default, and `seed`, 0 by default. Beside a sampler
        neither is needed, and another value than the sampler's own is refused.
    responses : a text a prompt that is forced as the whole response, so that `model` reads what another model
        wrote, and its anchors watch one that cannot be looked into. Texts longer than the response are cut;
        behind shorter ones end-of-sequence stands.
    layers : see `Model.layer_index`; one that is named twice is kept once. batch_size : prompts generated together;
        never changes a result.
    out : the recording's folder; a temporary one by default, gone with the returned object.
    keep : "phi", or "signal" to store sigma in place of phi and predictions, for which `anchors` are needed, or "looks"
        to store states at the looks of the answer alone (see `demur.looks`), so that memory and files grow with the
        looks and not with the tokens. window : of looks, over how many of the latest tokens the second mean is.
        precision : of looks, "float16" halves the files and rounds each number by at most one part in 2,048.
    engine : what generates in place of demur's own loop, such as a `RayEngine` or a `VllmEngine`; the recording is the
        same, of vLLM but for rounding.
    resume : go on with what `out` holds; False starts anew, and what is there is replaced once the new one is complete.
    part : ``(i, n)`` records the i-th of n parts, from 1, of the run that all arguments describe; each goes into a
        folder of its own, and `merge` makes one recording of them.
    progress : show a bar on stderr; by default a library call is quiet.

    Raises `InputError` for a prompt that does not fit, states that are not finite, a folder that holds
    another recording or is in use, a damaged shard, a full disk. Whatever was recorded before stays.
    """
    require_kept(keep)
    require_precision(keep, precision)
    require_whole("batch_size", batch_size)
    checked = as_prompts(prompts)
    model = as_model(model, tokenizer, needs_tokenizer=any(prompt.token_ids is None for prompt in checked))
    sampler = chosen_sampler(model, sampler, steps, seed)
    if engine is not None:
        require_one_process(model, "an engine")
        engine.require(model, sampler)
    if (is_split := processes_of(model) > 1) and out is None:
        raise InputError(f"{model.name}: is split over processes; give out=…, a folder that all of them see")
    indices = layer_indices(model, layers)
    texts = None if responses is None else checked_responses(responses, checked)
    encoded = encode(model, checked, sampler, texts)
    versions = {} if engine is None else engine.versions
    provenance = describe(model, checked, sampler, indices, texts, versions)
    kept_anchors = _checked(anchors, provenance) if keep == "signal" else None
    looks = sampler.looks_of(window) if keep == "looks" else None
    kept_looks = described(looks, precision) if looks else None
    manifest = {
        "provenance": provenance.to_dict(),
        "key": provenance.key(),
        "keep": keep,
        "signal": None
        if kept_anchors is None
        else kept_anchors.describe(provenance, max(kept_anchors.layers)).to_dict(),
        "revises": sampler.revises,
        "eos_token_ids": model.eos_token_ids,
        "mask_token_id": model.mask_token_id,
        "opening": model.chat_format.opening if texts is None else "",
        "inputs": inputs_hash(encoded),
        "complete": False,
        **({"looks": kept_looks} if kept_looks else {}),
    }
    places: np.ndarray | None = None
    if part is not None:
        places = rows_of_part(encoded, batch_size, part)
        checked, encoded = [checked[row] for row in places], encoded.chosen(places, anew=True)
        texts = None if texts is None else [texts[row] for row in places]
        own = describe(model, checked, sampler, indices, texts, versions)
        manifest = part_manifest(manifest, part, batch_size, own, inputs_hash(encoded))
    shown = False if is_split and not is_first() else progress
    temporary = tempfile.TemporaryDirectory(prefix="demur-") if out is None else None
    folder = Path(temporary.name if temporary else out or "")

    def recorded(done: np.ndarray) -> Iterator[Kept]:
        left = encoded.chosen(np.flatnonzero(~np.isin(encoded.rows, done)))
        generated = batches if engine is None else engine.batches
        every = generated(model, left, sampler, indices, batch_size, [prompt.id for prompt in checked], looks)
        for batch in _told(every, folder.name, len(done), len(checked), shown):
            arrays = _arrays(batch, kept_anchors, indices, kept_looks)
            if places is not None:
                arrays[RUN_ROWS] = places[batch.rows]
            yield Kept(arrays, _table(batch, checked))

    keeping = keep_together if is_split else keep_all
    keeping(folder, manifest, recorded, lambda root: files.save_tokenizer(root, model.tokenizer), resume=resume)
    recording = Recording(folder)
    recording._temporary = temporary
    return recording


def stream_anchors(
    model: Model | str | Path,
    harmless: Prompts,
    harmful: Prompts,
    sampler: Sampler | None = None,
    *,
    steps: int | None = None,
    layers: Sequence[Layer] | Layer = ("last",),
    batch_size: int = 16,
    seed: int | None = None,
    minimum: int = 8,
    least_share: float = 0.05,
    progress: bool | None = None,
) -> Anchors:
    """Anchors straight from a model and prompts, without storing phi.

    The result equals ``Anchors.fit`` on recordings of the same prompts. Arguments as in `record`;
    minimum, least_share : see `Anchors.fit`.
    """
    require_whole("batch_size", batch_size)
    model = as_model(model)
    sampler = chosen_sampler(model, sampler, steps, seed)
    indices = layer_indices(model, layers)
    sums = []
    for prompts in (as_prompts(harmless), as_prompts(harmful)):
        side = AnchorSums()
        encoded = encode(model, prompts, sampler)
        every = batches(model, encoded, sampler, indices, batch_size, [prompt.id for prompt in prompts])
        for batch in _told(every, "anchors", 0, len(prompts), progress):
            if batch.refused is None:
                raise InputError(f"{model.name}: has no tokenizer, so refusals cannot be read; fit from recordings")
            side.update(batch.phi, np.array(batch.refused))
        sums.append(side)
    return Anchors.from_sums(
        *sums, minimum=minimum, least_share=least_share, provenance=describe(model, [], sampler, indices)
    )


def describe(
    model: Model,
    prompts: Sequence[Prompt],
    sampler: Sampler,
    layers: Sequence[int],
    responses: Sequence[str] | None = None,
    versions: Mapping[str, str] = MappingProxyType({}),
) -> Provenance:
    """The provenance of a recording of `prompts`, free or of forced `responses`. versions : of further packages."""
    return Provenance(
        model=model.name,
        fingerprint=model.fingerprint,
        sampler=sampler.describe(),
        layers=tuple(layers),
        chat_format=model.chat_format.to_dict(),
        prompts=prompts_hash(prompts),
        count=len(prompts),
        versions={**{name: version(name) for name in ("demur", "torch", "transformers")}, **versions},
        responses="" if responses is None else responses_hash(responses),
        former=model.former_fingerprint,
        execution=model.execution,
    )


def _checked(anchors: Anchors | None, provenance: Provenance) -> Anchors:
    if anchors is None:
        raise InputError("keep='signal' needs anchors to turn states into the signal; give anchors=…")
    require_comparable(anchors.provenance, provenance, ("the anchors", "this recording"), layers=False)
    if max(anchors.layers) not in provenance.layers:
        raise InputError(f"the anchors are of layer {max(anchors.layers)}; record it: layers={list(provenance.layers)}")
    return anchors


def _arrays(
    batch: Batch, anchors: Anchors | None, layers: Sequence[int], looks: Mapping[str, Any] | None
) -> files.Arrays:
    """What a shard keeps of a batch: phi and every step's predictions, or in their place sigma or states at looks."""
    arrays = {"rows": batch.rows, "tokens": batch.tokens, "committed_at": batch.committed_at}
    if anchors is not None:
        layer = max(anchors.layers)
        return {**arrays, "sigma": anchors.score(batch.phi[:, :, layers.index(layer)], layer=layer)}
    if looks is not None:
        return {**arrays, **look_arrays(batch, looks)}
    if batch.predicted is not None:
        arrays["predicted"] = batch.predicted
    return {**arrays, "phi": batch.phi}


def _table(batch: Batch, prompts: Sequence[Prompt]) -> pd.DataFrame:
    chosen = [prompts[row] for row in batch.rows]
    columns: dict[str, Any] = {
        name: pd.array([getattr(prompt, name) for prompt in chosen], dtype="string")
        for name in ("id", "prompt", "label", "attack", "goal", "category", "group")
    }
    missing = [pd.NA] * len(chosen)
    columns["text"] = pd.array(batch.texts or missing, dtype="string")
    columns["refused"] = pd.array(batch.refused or missing, dtype="boolean")
    columns["tokens"] = (batch.committed_at > 0).sum(axis=1)
    columns |= {"prompt_tokens": batch.prompt_tokens, "seconds": batch.seconds, "row": batch.rows}
    return pd.DataFrame(columns)


def _told(every: Iterator[Batch], name: str, done: int, total: int, progress: bool | None) -> Iterator[Batch]:
    """Pass batches on, and tell who watches how far they are; with a bar of its own where that is asked for."""
    watcher = None if progress is False else begun(name, done, total)
    if watcher is not None:
        for batch in every:
            yield batch
            watcher.advance(len(batch.rows))
        return
    if not progress:
        yield from every
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("recording", total=total - done)
        for batch in every:
            bar.advance(task, len(batch.rows))
            yield batch
