"""From prompts to finished batches: encode, sort, sample, pool.

In: a model, prompts and a sampler. Out: one `Batch` of plain CPU arrays after another, longest prompts
first. Nothing of a batch outlives it here, so memory does not grow with the number of prompts; what to
keep is the caller's business.
"""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from demur.errors import InputError
from demur.judges.dictionary import refused
from demur.looks import Looks
from demur.models import Model, decode_response
from demur.prompts import Prompt
from demur.recording.encoded import Encoded, EncodedPrompts, Plan
from demur.recording.forcing import forced_of, whole_response
from demur.recording.gaps import text_with_gaps
from demur.samplers import Sampler, Step
from demur.samplers.step import require_family


@dataclass(frozen=True)
class Batch:
    """What a batch of generations leaves behind.

    rows : int64 ``[batch]``, places in the prompt set. phi : float32 ``[batch, steps, layers, width]``, or of looks.
    window : of looks, the means over the latest tokens, shaped like phi; else None.
    tokens : int32 ``[batch, response]``, the final response. committed_at : int16 ``[batch, response]``, the
    step at which each position was committed, 0 where it never was. predicted : int32
    ``[batch, steps, response]``, or None where a sampler never revises. texts, refused : the final text
    and whether the dictionary finds a refusal in it, None without a tokenizer. seconds : wall time a prompt.
    """

    rows: np.ndarray
    phi: np.ndarray
    window: np.ndarray | None
    tokens: np.ndarray
    committed_at: np.ndarray
    predicted: np.ndarray | None
    texts: list[str] | None
    prompt_tokens: list[int]
    seconds: float

    @property
    def refused(self) -> list[bool] | None:
        return None if self.texts is None else [refused(text) for text in self.texts]


def encode(
    model: Model, prompts: Sequence[Prompt], sampler: Sampler, responses: Sequence[str] | None = None
) -> EncodedPrompts:
    """Token ids of every prompt; refuses one that does not fit the model's context or vocabulary.

    responses : texts that are forced as the whole response of each prompt; see `checked_responses`.
    """
    require_family(model, sampler)

    def pairs() -> Iterator[tuple[Sequence[int], Sequence[int]]]:
        for row, prompt in enumerate(prompts):
            where = f"prompt {prompt.id!r} (row {row + 1})"
            ids = prompt.token_ids if prompt.token_ids is not None else _encoded(model, prompt, where)
            _require_fits(model, where, ids, sampler.response_length)
            if responses is None:
                yield ids, forced_of(model, prompt, sampler, where)
            else:
                yield ids, whole_response(model, responses[row], sampler, where)

    return EncodedPrompts(pairs(), whole=responses is not None)


def inputs_hash(encoded: Sequence[Encoded]) -> str:
    """sha256 over the token ids that run: each input, and what is forced of its response, in the prompts' order."""
    digest = hashlib.sha256()
    for one in encoded:
        for ids in (one.ids, one.forced):
            digest.update(np.int64(len(ids)).tobytes() + ids.astype("<i4").tobytes())
    return digest.hexdigest()


def _encoded(model: Model, prompt: Prompt, where: str) -> list[int]:
    """Token ids of a prompt in the model's chat format; faults name the prompt."""
    try:
        ids = model.encode(prompt.prompt or "", prompt.turns)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    if model.mask_token_id is not None and model.mask_token_id in ids:
        raise InputError(
            f"{where}: its text holds the model's mask token, which would not be filled in there; give the template of "
            f"the response in the field 'infill', with [[mask:N]] for N free positions"
        )
    return ids


def batches(
    model: Model,
    encoded: Sequence[Encoded],
    sampler: Sampler,
    layers: Sequence[int],
    batch_size: int,
    ids: Sequence[str] | Mapping[int, str],
    looks: Looks | None = None,
) -> Iterator[Batch]:
    """Generate for all prompts, longest first, `batch_size` at a time.

    ids : id of the prompt at each row, for messages. looks : keep states at these steps alone, and no predictions, so
    that memory grows with the looks. Raises `InputError` naming prompt and step where a
    state is not finite.
    """
    for chosen in Plan(encoded, batch_size):
        try:
            batch = generate(model, chosen, sampler, layers, looks)
        except (RuntimeError, MemoryError) as error:
            if not _is_lack_of_memory(error):
                raise
            raise _no_room(model, chosen) from error
        require_finite(batch, ids, looks)
        yield batch


def _is_lack_of_memory(error: RuntimeError | MemoryError) -> bool:
    """CUDA has a class for it; the processor's allocator and MPS have words alone."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(words in str(error) for words in ("can't allocate memory", "out of memory"))


def _no_room(model: Model, chosen: Sequence[Encoded]) -> InputError:
    longest = max(len(one.ids) for one in chosen)
    mend = (
        f"give batch_size (--batch-size) {len(chosen) // 2} or less"
        if len(chosen) > 1
        else "leave longer prompts out, or take a smaller dtype, as bfloat16"
    )
    return InputError(
        f"{model.name}: no memory on {model.device} for a batch of {len(chosen)} prompts, the longest of {longest} "
        f"tokens; {mend}. What is recorded stays"
    )


def _require_fits(model: Model, where: str, ids: Sequence[int], response: int) -> None:
    vocabulary, limit = int(model.config.vocab_size), model.context_length
    if max(ids) >= vocabulary:
        raise InputError(f"{where}: token id {max(ids)} is outside the model's {vocabulary}")
    if limit is not None and len(ids) + response > limit:
        raise InputError(
            f"{where}: {len(ids)} tokens and a response of {response} do not fit "
            f"the model's context of {limit}; shorten the prompt or leave it out"
        )


def generate(
    model: Model, chosen: Sequence[Encoded], sampler: Sampler, layers: Sequence[int], looks: Looks | None
) -> Batch:
    """Run the steps of some prompts together, and keep what a recording needs of them."""
    started = time.perf_counter()
    phi, windows, predicted = [], [], []
    step = committed_at = None
    for step in _steps(model, chosen, sampler, layers, looks):
        if committed_at is None:
            committed_at = torch.zeros(step.committed.shape, dtype=torch.int16, device=step.committed.device)
        committed_at[step.is_committed & (committed_at == 0)] = step.index
        if looks is None or step.index in looks:
            phi.append(step.phi)
        if step.window is not None:
            windows.append(step.window)
        if sampler.revises and looks is None:
            # An edit of a committed token counts from its own step on.
            predicted.append(torch.where(step.is_committed, step.committed, step.predicted).to(torch.int32))
    assert step is not None and committed_at is not None  # every sampler has at least one step
    tokens = step.committed.to(torch.int32).cpu().numpy()
    return Batch(
        rows=np.array([one.row for one in chosen]),
        phi=torch.stack(phi, dim=1).cpu().numpy(),
        window=torch.stack(windows, dim=1).cpu().numpy() if windows else None,
        tokens=tokens,
        committed_at=committed_at.cpu().numpy(),
        predicted=torch.stack(predicted, dim=1).cpu().numpy() if predicted else None,
        texts=None if model.tokenizer is None else _texts(model, tokens, committed_at.cpu().numpy(), chosen[0].whole),
        prompt_tokens=[len(one.ids) for one in chosen],
        seconds=(time.perf_counter() - started) / len(chosen),
    )


def _steps(
    model: Model, chosen: Sequence[Encoded], sampler: Sampler, layers: Sequence[int], looks: Looks | None
) -> Iterator[Step]:
    ids, mask = pad_left([one.ids for one in chosen], model.pad_token_id)
    forced = [one.forced.tolist() for one in chosen]
    options: dict[str, Any] = {**samples_for(sampler, chosen), **({"looks": looks} if looks else {})}
    if chosen[0].whole:
        return sampler.forced_steps(model, ids, mask, responses=torch.tensor(forced), layers=layers, **options)
    return sampler.steps(model, ids, mask, layers=layers, prefill=forced if any(forced) else None, **options)


def samples_for(sampler: Sampler, chosen: Sequence[Encoded]) -> dict[str, list[int]]:
    """Which sample of its prompt each row is, for a sampler that takes `samples`; those written before it do not."""
    takes = "samples" in inspect.signature(sampler.steps).parameters
    return {"samples": [one.sample for one in chosen]} if takes else {}


def _texts(model: Model, tokens: np.ndarray, committed_at: np.ndarray, whole: bool) -> list[str]:
    """The final texts; a text that was given whole is not part of a thought that this model's template opens."""
    opening = "" if whole else model.chat_format.opening
    rows = zip(tokens, committed_at, strict=True)

    def decode(run: Sequence[int]) -> str:
        return decode_response(model.tokenizer, run, model.eos_token_ids)

    return [opening + text_with_gaps(decode, row, places > 0, model.eos_token_ids) for row, places in rows]


def pad_left(rows: Sequence[np.ndarray], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask int64 ``[batch, prompt]``, padded on the left with the id `pad`."""
    longest = max(len(row) for row in rows)
    ids = torch.full((len(rows), longest), pad, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, longest - len(row) :] = torch.from_numpy(row.astype(np.int64))
        mask[place, longest - len(row) :] = 1
    return ids, mask


def require_finite(batch: Batch, ids: Sequence[str] | Mapping[int, str], looks: Looks | None) -> None:
    """Raise `InputError` naming prompt and step where a state is not finite."""
    bad = np.argwhere(~np.isfinite(batch.phi).all(axis=(2, 3)))
    if len(bad):
        row, place = bad[0]
        step = looks.steps[place] if looks else place + 1
        raise InputError(
            f"prompt {ids[batch.rows[row]]!r}, step {step}: the model's states are not finite "
            f"(NaN or infinity); load the model with dtype='float32' or 'bfloat16', or check its weights"
        )
