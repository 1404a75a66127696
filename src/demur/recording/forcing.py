"""What is forced into a response: the beginning or the template that a prompt carries.

In: a prompt, the model whose tokenizer reads the text, and the sampler that is to force it. Out: token ids with
`FREE` at the positions that the model fills in. What does not fit is an `InputError` that names the prompt.
"""

from __future__ import annotations

from demur.errors import InputError
from demur.infill import infill_parts
from demur.models import Model
from demur.prompts import Prompt
from demur.samplers import Sampler
from demur.samplers.step import FREE


def forced_of(model: Model, prompt: Prompt, sampler: Sampler, where: str) -> list[int]:
    """Response tokens that `prompt` forces, from position 0; the texts of a template are tokenized one by one.

    where : what messages call the prompt. Positions behind the end of the template are free.
    """
    kind = "infill" if prompt.infill else "prefill"
    forced: list[int] = []
    for part in infill_parts(prompt.infill) if prompt.infill else [prompt.prefill or ""]:
        forced += [FREE] * part if isinstance(part, int) else model.encode_prefill(part) if part else []
    if len(forced) > sampler.response_length:
        raise InputError(
            f"{where}: its {kind} has {len(forced)} tokens, more than the response's {sampler.response_length}; "
            f"record more {'steps' if sampler.family == 'autoregressive' else 'positions (response_length)'} "
            f"or shorten it"
        )
    if sampler.family == "autoregressive" and _has_gap(forced):
        raise InputError(
            f"{where}: its infill forces text behind a gap, which an autoregressive sampler cannot: it forces a "
            f"beginning only. Use a masked-diffusion model, or the field 'prefill'"
        )
    return forced


def _has_gap(forced: list[int]) -> bool:
    """Whether a token is forced behind a free position."""
    return FREE in forced and any(token != FREE for token in forced[forced.index(FREE) :])
