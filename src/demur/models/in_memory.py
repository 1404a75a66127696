"""`from_network`: from a network in memory to a `Model`.

In: a torch module, its tokenizer if it has one, and what cannot be read off it. Out: a `Model`. This is also
the way in for masked-diffusion models with code of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeGuard

import torch

from demur.errors import InputError
from demur.models.chat import ChatFormat
from demur.models.end_tokens import end_tokens, pad_token, token_ids, vocabulary_size
from demur.models.families import require_autoregressive
from demur.models.model import Model
from demur.models.traits import DEFAULT, FAMILIES, Family

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def is_network(thing: object) -> TypeGuard[torch.nn.Module]:
    """Whether it is a network with a config, such as those of transformers."""
    return isinstance(thing, torch.nn.Module) and hasattr(getattr(thing, "config", None), "get_text_config")


def from_network(
    network: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    name: str = "in-memory",
    content: str | None = None,
    family: Family | None = None,
    revision: str | None = None,
    mask_token_id: int | None = None,
    logits_shifted: bool = False,
    samplers: tuple[str, ...] = (),
    final_norm: str | None = None,
    eos_token_ids: list[int] | None = None,
    sampler_defaults: dict[str, Any] | None = None,
    content_before: Callable[[], str] | None = None,
    chat_format: ChatFormat | None = None,
) -> Model:
    """A `Model` around a network that is in memory already.

    For a network with edited weights, and for masked-diffusion models that `load` does not know: load
    theirs with their own code, and say here what sets them apart::

        network = AutoModel.from_pretrained(name, trust_remote_code=True)
        model = from_network(network, tokenizer, family="masked-diffusion", mask_token_id=126336,
                             final_norm="model.transformer.ln_f")

    content : identity of config and weights; by default a hash over every parameter, taken anew when one changes.
    family : "autoregressive" by default, which is refused for a network whose config speaks of masks.
    mask_token_id : masked diffusion needs one; by default the config's or the tokenizer's.
    logits_shifted : whether the logits at position i - 1 predict position i.
    samplers : see `Model`; `("BlockDiffusion",)` for a network that attends within blocks (`make_block_causal`).
    final_norm : dotted name of the final norm, for a network with its own attention: it is called with
        ``input_ids`` and a mask ``[batch, positions]`` and must give logits at every position; its blocks
        are the module list beside the norm. None for transformers' own decoder classes; one of those
        becomes bidirectional with `make_bidirectional`.
    eos_token_ids : by default those of generation config, config, tokenizer and chat template together.
    sampler_defaults, content_before : see `Model`. chat_format : by default `ChatFormat.of` the tokenizer.
    """
    if family is not None and family not in FAMILIES.names():
        raise InputError(f"family is {family!r}; expected one of {', '.join(map(repr, FAMILIES))}")
    chat_format = chat_format or ChatFormat.of(tokenizer)  # before any other use of the template, which it tries out
    config: Any = network.config
    if family is None:
        settings = {"architectures": [type(network).__name__], **_plain_config(config)}
        require_autoregressive(name, settings, {}, asked=False)
        family = DEFAULT
    if mask_token_id is None and FAMILIES[family].has_masks:
        mask_token_id = _mask_id(name, family, config, tokenizer)
    _require_known(name, "mask_token_id", mask_token_id, network)
    eos = end_tokens(network, tokenizer) if eos_token_ids is None else list(dict.fromkeys(eos_token_ids))
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    return Model(
        network=network.eval(),
        tokenizer=tokenizer,
        name=name,
        family=family,
        content=content or "",
        chat_format=chat_format,
        eos_token_ids=eos,
        pad_token_id=pad_token(network, tokenizer, eos),
        mask_token_id=mask_token_id,
        context_length=context if isinstance(context, int) and context > 0 else None,  # XLNet says -1
        revision=revision,
        sampler_defaults=sampler_defaults or {},
        logits_shifted=logits_shifted,
        samplers=samplers,
        final_norm=final_norm,
        content_before=content_before,
    )


def _mask_id(name: str, family: str, config: Any, tokenizer: Any) -> int:
    found = token_ids(getattr(config, "mask_token_id", None), getattr(tokenizer, "mask_token_id", None))
    if not found:
        raise InputError(
            f"{name}: a {family} model needs a mask token, and neither its config nor its tokenizer "
            f"names one; give mask_token_id"
        )
    return found[0]


def _plain_config(config: Any) -> dict[str, Any]:
    """A config's values, of whatever class it is; the class of the network says more than names in it."""
    values = config.to_dict() if hasattr(config, "to_dict") else dict(vars(config))
    return {key: value for key, value in values.items() if key not in ("architectures", "auto_map")}


def _require_known(name: str, what: str, token: int | None, network: Any) -> None:
    size = vocabulary_size(network)
    if token is not None and size is not None and not 0 <= token < size:
        raise InputError(
            f"{name}: the mask token is {token} ({what}), but the vocabulary has {size} tokens; give the mask's own id"
        )
