"""Dream checkpoints, and those in its layout (DiffuCoder, Dream-Coder), in transformers' Qwen2 blocks.

In: the config and folder of a checkpoint in the official layout, whose tensors have Qwen2's names. Out: a
`Qwen2ForCausalLM` that attends in both directions. Its logits are shifted by one: those at position i - 1
predict position i, as in the autoregressive model Dream was trained from.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from demur.models.checkpoint import Built, DType, empty, fill, token_id, unsupported
from demur.models.end_tokens import token_ids
from demur.models.formats.bidirectional import make_bidirectional
from demur.models.json_file import read_json_if_there

MASK = 151666
"""The mask token of Dream-v0-Instruct-7B, used where the config names none."""

KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "hidden_act",
    "tie_word_embeddings",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
)


def build_dream(config: Mapping[str, Any], folder: Path, dtype: DType, device: torch.device) -> Built:
    """The network of a Dream checkpoint; scaled rotary embeddings and sliding windows are `InputError`s."""
    for key in ("rope_scaling", "use_sliding_window"):
        if config.get(key):
            raise unsupported(folder, key, config[key], "null or false")
    network = empty(partial(_network, config), folder)
    fill(network, folder, str, dtype, device, tied=network.config.tie_word_embeddings)
    make_bidirectional(network)
    return Built(
        network=network,
        family="masked-diffusion",
        eos_token_ids=_end_of_sequence(config, folder),
        mask_token_id=token_id(config, "mask_token_id", MASK, folder),
        logits_shifted=True,
        sampler_defaults={"response_length": 128, "remasking": "entropy", "schedule": "dream"},
        tokenizer_class="Qwen2Tokenizer",  # the checkpoint's own class is remote code around the same files
    )


def _network(config: Mapping[str, Any]) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    theta = float(config.get("rope_theta", 10000.0))
    settings = {key: config[key] for key in KEYS if key in config}
    return Qwen2ForCausalLM(
        Qwen2Config(**settings, rope_parameters={"rope_type": "default", "rope_theta": theta}, use_sliding_window=False)
    )


def _end_of_sequence(config: Mapping[str, Any], folder: Path) -> list[int]:
    """What ends a response, of the generation config and of the config.

    The pad is part of it: these models fill a canvas behind the answer with it, and DiffuCoder's is a token of its own,
    which its authors cut the text at.
    """
    generation = read_json_if_there(folder / "generation_config.json")
    ends = [found.get(key) for key in ("eos_token_id", "pad_token_id") for found in (generation, config)]
    return list(dict.fromkeys(token_ids(*ends)))
