"""What a config.json may ask for: sizes that its weights bear out, and no code.

In: a config as it stands in its file, and the tensors that stand in the weight files. Out: nothing, or an
`InputError` that names the key, before anything of that size is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.models.weight_files import TensorSize, named

LARGEST = 2**40
MOST_LABELS = 100_000
OWN_ATTENTION = ("eager", "sdpa")
ATTENTION = re.compile(r"_?(attn|experts)_implementation(_internal)?")
DEPTH = re.compile(r"(num|n)_?\w*(layers?|blocks|layer_groups|depths?)|layers?|depths?")
EXPERTS = re.compile(r"\w*(num|n)_\w*experts")
SPARE_BYTES = 2 << 30
"""Buffers that no file holds, such as causal masks, may take this much."""


def require_sane_config(config: Mapping[str, Any], folder: Path, tensors: Mapping[str, TensorSize]) -> None:
    """Refuse sizes that these tensors do not bear out, and kernels that would come as code from elsewhere."""
    file = folder / "config.json"
    widest = max(size for tensor in tensors.values() for size in (*tensor.shape, 1))
    for key, value in _leaves(config):
        if ATTENTION.fullmatch(key) and isinstance(value, str) and ("/" in value or ":" in value):
            raise InputError(f"{file}: {key} names the kernel {value!r}, which is code from elsewhere; remove the key")
        if not isinstance(value, int) or isinstance(value, bool):
            continue
        if abs(value) > LARGEST:
            raise InputError(f"{file}: {key} is {value:.3g}, which no network has; get the file again")
        if DEPTH.fullmatch(key) and value > len(tensors):
            raise InputError(f"{file}: {key} is {value}, but the weights hold {len(tensors)} tensors in all")
        if EXPERTS.fullmatch(key) and value > max(widest, len(tensors)):
            raise InputError(f"{file}: {key} is {value}, but no tensor of the weights has that many rows")
        if key == "num_labels" and value > MOST_LABELS:
            raise InputError(f"{file}: num_labels is {value}; a language model has none. Remove the key")


def require_fitting_size(network: Any, folder: Path, tensors: Mapping[str, TensorSize], *, quantized: bool) -> None:
    """Refuse a network, built without memory, that needs far more of it than its weights hold.

    Head and embeddings may be one tensor in the file, hence twice as much; packed weights hold up to 16 a number.
    """
    held = sum(tensor.elements for tensor in tensors.values())
    asked = sum(parameter.numel() for parameter in network.parameters())
    if asked > held * (32 if quantized else 2):
        raise InputError(
            f"{folder}: the weights do not fit the config.json, which asks for {asked:,} parameters where they hold "
            f"{held:,}: {_odd_ones(network, tensors)}. The two are not of one checkpoint"
        )
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in network.buffers())
    if buffers > SPARE_BYTES + 4 * held:
        raise InputError(
            f"{folder}: the config.json asks for {buffers:,} bytes beside the weights; is a length in it wrong?"
        )


def _odd_ones(network: Any, tensors: Mapping[str, TensorSize]) -> str:
    """The tensors that are not there, or, where all are, those of another shape; by name as far as names agree."""
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    shapes = [name for name, shape in wanted.items() if name in tensors and tensors[name].shape != shape]
    missing = [name for name in wanted if name not in tensors]
    return f"missing {named(missing)}; of another shape {named(shapes)}"


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Pairs of the nearest key and every plain value below it."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key, value
