"""What is forced into a response: the beginning or template that a prompt carries, or a whole text.

In: a prompt, the model whose tokenizer reads the text, and the sampler that is to force it. Out: token ids with
`FREE` at the positions that the model fills in. What does not fit is an `InputError` that names the prompt.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from demur.errors import InputError
from demur.models import FAMILIES, Model
from demur.prompts import Prompt, ReadOptions, file_rows
from demur.prompts.infill import infill_parts
from demur.prompts.values import checked_text
from demur.samplers import Sampler
from demur.samplers.step import FREE


def forced_of(model: Model, prompt: Prompt, sampler: Sampler, where: str) -> list[int]:
    """Response tokens that `prompt` forces, from position 0; the texts of a template are tokenized one by one.

    where : what messages call the prompt. Positions behind the end of the template are free.
    """
    kind, traits = "infill" if prompt.infill else "prefill", FAMILIES.find(sampler.family)
    forced: list[int] = []
    for part in infill_parts(prompt.infill) if prompt.infill else [prompt.prefill or ""]:
        forced += [FREE] * part if isinstance(part, int) else model.encode_prefill(part) if part else []
    if model.mask_token_id is not None and model.mask_token_id in forced:
        raise InputError(
            f"{where}: its {kind} holds the model's mask token as text, which is never committed; write [[mask:N]] in "
            f"the field 'infill' for N free positions"
        )
    if len(forced) > sampler.response_length:
        raise InputError(
            f"{where}: its {kind} has {len(forced)} tokens, more than the response's {sampler.response_length}; "
            f"record more {'steps' if traits.left_to_right else 'positions (response_length)'} "
            f"or shorten it"
        )
    if traits.forces == "beginning" and _has_gap(forced):
        raise InputError(
            f"{where}: its infill forces text behind a gap, which an {sampler.family} sampler cannot: it forces a "
            f"beginning only. Use a masked-diffusion model, or the field 'prefill'"
        )
    return forced


def checked_responses(responses: Sequence[str], prompts: Sequence[Prompt]) -> list[str]:
    """The texts to force, one a prompt; refuses another number, what is no text, and prompts that force text."""
    if isinstance(responses, str):
        raise InputError("responses is one text; give a list with one text a prompt")
    texts = list(responses)
    if len(texts) != len(prompts):
        raise InputError(f"{len(texts)} responses for {len(prompts)} prompts; give one text a prompt, in their order")
    for row, (text, prompt) in enumerate(zip(texts, prompts, strict=True), start=1):
        if not isinstance(text, str):
            raise InputError(
                f"prompt {prompt.id!r} (row {row}): its response is {text!r}, not text; give '' where it was empty"
            )
        if prompt.prefill is not None or prompt.infill is not None:
            raise InputError(
                f"prompt {prompt.id!r} (row {row}): forces a part of the response and is given a whole one; leave out "
                f"its 'prefill' or 'infill', and let the response hold that text"
            )
    return texts


def read_responses(
    path: str | Path,
    prompts: Sequence[Prompt],
    *,
    columns: Mapping[str, str | None] | None = None,
    encoding: str = "utf-8",
) -> list[str]:
    """The text that answers each prompt, from a file of rows with ``id`` and ``response``, in any order.

    path : a ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet`` file; an empty field of a CSV or TSV is an empty response.
    columns, encoding : as in `read_prompts`, for the fields `id` and `response`.
    Raises `InputError` naming rows without a text and prompts that have no row or two.
    """
    options = ReadOptions(columns or {}, encoding=encoding, fields=("id", "response"))
    empty = "" if Path(path).suffix.lower() in (".csv", ".tsv") else None
    found: dict[str, str] = {}
    for place, row in file_rows(Path(path), encoding):
        where = f"{path}, {place}"
        values = options.renamed(where, row) if isinstance(row, Mapping) else {}
        name, text = values.get("id"), values.get("response")
        text = empty if text is None and "response" in values else text
        if name is None or not isinstance(text, str):
            raise InputError(f"{where}: expected the fields 'id' and 'response', a text ('' where it was empty)")
        if str(name) in found:
            raise InputError(f"{where}: a second response for the prompt {str(name)!r}; leave one out")
        found[str(name)] = str(checked_text(where, "response", text))
    missing = [prompt.id for prompt in prompts if prompt.id not in found]
    if missing:
        raise InputError(
            f"{path}: has no response for {len(missing)} of {len(prompts)} prompts, the first with the id "
            f"{missing[0]!r}; give a row with 'id' and 'response' for each"
        )
    return [found[prompt.id] for prompt in prompts]


def responses_hash(texts: Sequence[str]) -> str:
    """sha256 over the texts in their order."""
    return hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()


def whole_response(model: Model, text: str, sampler: Sampler, where: str) -> list[int]:
    """Tokens of `text` at all response positions: cut where it is longer, then filled up with end-of-sequence."""
    tokens = model.encode_prefill(text)[: sampler.response_length] if text else []
    if model.mask_token_id in tokens:
        raise InputError(f"{where}: its response holds the model's mask token, which is never committed; remove it")
    missing = sampler.response_length - len(tokens)
    if missing and not model.eos_token_ids:
        raise InputError(
            f"{where}: its response has {len(tokens)} of {sampler.response_length} tokens and {model.name} has no "
            f"end-of-sequence token to end it with; set model.eos_token_ids"
        )
    return tokens + model.eos_token_ids[:1] * missing


def _has_gap(forced: list[int]) -> bool:
    """Whether a token is forced behind a free position."""
    return FREE in forced and any(token != FREE for token in forced[forced.index(FREE) :])
