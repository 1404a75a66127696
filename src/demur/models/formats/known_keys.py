"""Which keys of a config a format reads, and which it cannot honour.

In: a config.json and a format's lists. Out: nothing, an `InputError` for a key that asks for something else than what
is built, or a warning that names the keys nobody here knows.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.models.checkpoint import unsupported

HARMLESS = frozenset(
    """
    model_type architectures auto_map torch_dtype dtype transformers_version _name_or_path use_cache initializer_range
    attention_dropout hidden_dropout embedding_dropout output_dropout resid_pdrop output_router_logits
    router_aux_loss_coef attn_implementation _attn_implementation flash_attention use_return_dict return_dict
    max_window_layers layer_types sliding_window output_attentions output_hidden_states is_decoder tokenizer_class
    pretraining_tp bos_token_id eos_token_id pad_token_id mask_token_id
    """.split()
)
"""Keys that change nothing in a forward pass of a network that is not trained, or are read elsewhere."""


def require_known(config: Mapping[str, Any], folder: Path, known: Iterable[str], fixed: Mapping[str, Any]) -> None:
    """Warn of keys that neither the format nor anybody else reads; `InputError` for those it cannot honour.

    known : keys the format reads. fixed : for each key the values it may have; None means that it is not there.
    """
    for key, values in fixed.items():
        allowed = values if isinstance(values, tuple) else (values,)
        if config.get(key) not in (None, *allowed):
            raise unsupported(folder, key, config[key], " or ".join(map(repr, allowed)))
    strange = sorted(set(config) - set(known) - set(fixed) - HARMLESS)
    if strange:
        warnings.warn(
            f"{folder / 'config.json'}: demur does not know the keys {', '.join(strange)}; the network is built "
            f"without them",
            stacklevel=5,
        )


def require_there(config: Mapping[str, Any], folder: Path, keys: Iterable[str]) -> None:
    """`InputError` naming the keys that are missing, without which no network can be built."""
    lacking = [key for key in keys if config.get(key) is None]
    if lacking:
        raise InputError(f"{folder / 'config.json'}: {', '.join(lacking)} is not there; get the file again")
