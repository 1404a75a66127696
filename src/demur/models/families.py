"""Which family a checkpoint belongs to, told by its config before anything is built.

In: a config.json as it stands, or a network in memory. Out: nothing where it may be autoregressive; an `InputError`
for one that fills masks or sees both sides of a token, whose answers would mean nothing if read from left to right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from demur.errors import InputError

DIFFUSION = re.compile(
    r"diffu(?!sers)|dllm|llada|^dream(model\w*|forcausallm)?$|sdar|^rnd1|wedlm|^mdlm|^mdm|^a2d|sedd|bd3lm|diffucoder"
    r"|maskedlm|blockdiff",
    re.IGNORECASE,
)
"""Names of architectures that are known to fill masks; `diffllama` is none of them."""
MASK_KEYS = ("mask_token_id", "mask_id", "mask_index", "bd_size", "diffusion_block_size", "block_diffusion")
LEFT_TO_RIGHT = re.compile(r"ForCausalLM|LMHeadModel|ForConditionalGeneration|DoubleHeadsModel|Decoder$")
SEVERAL = ("bart", "mbart", "mvp")
"""Model types that transformers knows with a masked head, but whose decoder runs from left to right."""


def require_autoregressive(
    name: str, config: Mapping[str, Any], tokenizer_config: Mapping[str, Any], *, asked: bool
) -> None:
    """`InputError` for a checkpoint whose config speaks of masks, unless its user said that it is autoregressive.

    A mask among the tokenizer's tokens says nothing by itself: many autoregressive vocabularies hold one.
    """
    sign = None if asked else _sign(config) or _sign_of_tokenizer(config, tokenizer_config)
    if sign:
        raise InputError(
            f"{name}: is no autoregressive model ({sign}), and demur has no format for it. Load it with its own code "
            f"and hand it to demur.models.from_network(family='masked-diffusion', mask_token_id=…); "
            f"if it does write from left to right, say family='autoregressive'"
        )


def _sign(config: Mapping[str, Any]) -> str | None:
    """What in a config shows that the network fills masks or sees both sides."""
    for key, value in _own_names(config):
        if DIFFUSION.search(value) and not value.lower().startswith("diffllama"):
            return f"{key} {value}"
    for part in (config, config.get("text_config")):
        if not isinstance(part, Mapping):
            continue
        for key in MASK_KEYS:
            if isinstance(part.get(key), int) and not isinstance(part.get(key), bool):
                return f"{key} {part[key]}"
        if part.get("is_causal") is False or part.get("use_bidirectional_attention") in (True, "all"):
            return "its attention sees both sides"
    kind = str(config.get("model_type"))
    if kind in _masked_types() and not config.get("is_decoder"):
        return f"model_type {kind}"
    return None


def _sign_of_tokenizer(config: Mapping[str, Any], tokenizer_config: Mapping[str, Any]) -> str | None:
    architectures = config.get("architectures") or []
    if not tokenizer_config.get("mask_token") or not isinstance(architectures, list) or not architectures:
        return None
    if any(LEFT_TO_RIGHT.search(str(one)) for one in architectures):
        return None
    return f"architecture {architectures[0]}, with a mask token"


def _own_names(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "model_type", str(config.get("model_type"))
    architectures = config.get("architectures")
    for one in architectures if isinstance(architectures, list) else []:
        yield "architecture", str(one)
    named = config.get("auto_map")
    for value in named.values() if isinstance(named, Mapping) else []:
        for one in value if isinstance(value, list) else [value]:
            yield "auto_map", str(one).rpartition(".")[2]


def _masked_types() -> set[str]:
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return set(MODEL_FOR_MASKED_LM_MAPPING_NAMES) - set(SEVERAL)
