"""`from_network`: from a network in memory to a `Model`.

In: a torch module, its tokenizer if it has one, and what cannot be read off it. Out: a `Model`. This is also
the way in for masked-diffusion models with code of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from demur.errors import InputError
from demur.models.chat import ChatFormat
from demur.models.fingerprint import module_hash
from demur.models.model import Family, Model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def from_network(
    network: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    name: str = "in-memory",
    content: str | None = None,
    family: Family = "autoregressive",
    revision: str | None = None,
    mask_token_id: int | None = None,
    logits_shifted: bool = False,
    final_norm: str | None = None,
    eos_token_ids: list[int] | None = None,
    sampler_defaults: dict[str, Any] | None = None,
) -> Model:
    """A `Model` around a network that is in memory already.

    For a network with edited weights, and for masked-diffusion models that `load` does not know: load
    theirs with their own code, and say here what sets them apart::

        network = AutoModel.from_pretrained(name, trust_remote_code=True)
        model = from_network(network, tokenizer, family="masked-diffusion", mask_token_id=126336,
                             final_norm="model.transformer.ln_f")

    content : identity of config and weights; by default a hash over every parameter.
    mask_token_id : masked diffusion needs one; by default the config's or the tokenizer's.
    logits_shifted : whether the logits at position i - 1 predict position i.
    final_norm : dotted name of the final norm, for a network with its own attention: it is called with
        ``input_ids`` and a mask ``[batch, positions]`` and must give logits at every position; its blocks
        are the module list beside the norm. None for transformers' own decoder classes; one of those
        becomes bidirectional with `make_bidirectional`.
    eos_token_ids : by default those of the generation config, the config or the tokenizer.
    sampler_defaults : see `Model`.
    """
    config: Any = network.config
    generation: Any = getattr(network, "generation_config", None)
    if mask_token_id is None and family == "masked-diffusion":
        mask_token_id = _mask_id(name, config, tokenizer)
    eos = (
        _ids(getattr(generation, "eos_token_id", None))
        or _ids(getattr(config.get_text_config(), "eos_token_id", None))
        or _ids(getattr(tokenizer, "eos_token_id", None))
    )
    eos = eos if eos_token_ids is None else eos_token_ids
    pad = _ids(getattr(generation, "pad_token_id", None), getattr(config, "pad_token_id", None))
    pad += _ids(getattr(tokenizer, "pad_token_id", None)) + eos + [0]
    return Model(
        network=network.eval(),
        tokenizer=tokenizer,
        name=name,
        family=family,
        content=content or module_hash(network),
        chat_format=ChatFormat.of(tokenizer),
        eos_token_ids=list(dict.fromkeys(eos)),
        pad_token_id=pad[0],
        mask_token_id=mask_token_id,
        context_length=getattr(config.get_text_config(), "max_position_embeddings", None),
        revision=revision,
        sampler_defaults=sampler_defaults or {},
        logits_shifted=logits_shifted,
        final_norm=final_norm,
    )


def _mask_id(name: str, config: Any, tokenizer: Any) -> int:
    found = _ids(getattr(config, "mask_token_id", None), getattr(tokenizer, "mask_token_id", None))
    if not found:
        raise InputError(
            f"{name}: a masked-diffusion model needs a mask token, and neither its config nor its tokenizer "
            f"names one; give mask_token_id"
        )
    return found[0]


def _ids(*values: Any) -> list[int]:
    """Every token id among values that may be None, one id or a list of them."""
    ids: list[int] = []
    for value in values:
        if value is not None:
            ids += [int(value)] if not isinstance(value, list | tuple) else [int(one) for one in value]
    return ids
