"""`.gguf` files: read whole, every tensor accounted for, or refused.

In: a folder and the name of a file in it. Out: the network that transformers makes of it, its weights unpacked to
floating point. transformers leaves out tensors that it has no place for; here they are counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from demur.errors import InputError
from demur.models.formats.causal import DType, from_files
from demur.models.weight_files import named

SPLIT = re.compile(r".*-\d{5}-of-(\d{5})\.gguf")
SIZE = re.compile(r"\.(block_count|embedding_length|feed_forward_length|vocab_size|expert_count)$")
ROTATION = "rope_freqs.weight"
"""Factors by which the rotary frequencies are divided (Llama 3); it is no parameter of transformers' networks."""


def build_gguf(folder: Path, name: str, dtype: DType) -> Any:
    """The network in a `.gguf` file; `InputError` where a tensor lacks or is left over, or for a split file."""
    _need_packages()
    split = SPLIT.fullmatch(name)
    if split and int(split[1]) > 1:
        raise InputError(f"{folder / name}: is one of {int(split[1])} files; join them first: llama-gguf-split --merge")
    sizes, rotation, fields = _header(folder / name)
    if int(fields.get("split.count") or 0) > 1:
        raise InputError(
            f"{folder / name}: is one of {fields['split.count']} files; join them: llama-gguf-split --merge"
        )
    network = from_files(folder, dtype, {"gguf_file": name, "trust_remote_code": False, **_unpacked()})
    _require_all_used(folder / name, network, sizes)
    _require_rotation(folder / name, network, fields)
    if rotation is not None:
        _rotate(network, rotation, folder / name)
    return network


def _header(file: Path) -> tuple[dict[str, int], torch.Tensor | None, dict[str, Any]]:
    """The number of elements of each tensor, the rotation factors, and the plain fields of a file."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        sizes = {tensor.name: int(tensor.n_elements) for tensor in reader.tensors}
        factors = [torch.tensor(tensor.data) for tensor in reader.tensors if tensor.name == ROTATION]
        fields = {
            name: field.contents()
            for name, field in reader.fields.items()
            if name.startswith("split.") or ".rope.scaling." in name or SIZE.search(name)
        }
        widest = max((int(size) for tensor in reader.tensors for size in tensor.shape), default=0)
    except Exception as error:  # the reader checks little and fails anywhere
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{file}: the checkpoint cannot be loaded: no .gguf file, or damaged ({reason})") from error
    if not sizes:
        raise InputError(f"{file}: holds no tensor; get it again")
    for name, value in fields.items():
        most = len(sizes) if name.endswith("block_count") else widest
        if SIZE.search(name) and any(isinstance(one, int) and one > most for one in _several(value)):
            raise InputError(f"{file}: {name} is {value}, which its tensors do not bear out; get the file again")
    return sizes, factors[0] if factors else None, fields


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _require_all_used(file: Path, network: Any, sizes: Mapping[str, int]) -> None:
    """Compare how many numbers the file holds with how many the network has: no name need be translated for that."""
    held = sum(size for name, size in sizes.items() if name != ROTATION)
    tensors = {tensor.data_ptr(): tensor.numel() for tensor in network.state_dict().values()}
    if held == sum(tensors.values()):
        return
    depth = network.config.get_text_config().num_hidden_layers
    blocks = {name: int(name.split(".")[1]) for name in sizes if re.match(r"blk\.\d+\.", name)}
    left = sorted(name for name, block in blocks.items() if block >= depth) or sorted(set(sizes) - set(blocks))
    raise InputError(
        f"{file}: holds {held:,} weights, but the network that its header describes takes {sum(tensors.values()):,}; "
        f"look at {named(left)}. Get the file again, or use the checkpoint it was made from"
    )


def _require_rotation(file: Path, network: Any, fields: Mapping[str, Any]) -> None:
    """Refuse scaled positions that transformers' reader did not take over."""
    kind = next((value for name, value in fields.items() if name.endswith("rope.scaling.type")), None)
    known = getattr(network.config.get_text_config(), "rope_parameters", None) or {}
    if kind not in (None, "none") and known.get("rope_type", "default") == "default":
        raise InputError(
            f"{file}: scales its positions by {kind!r}, which is not followed in .gguf files; "
            f"use the checkpoint it was made from"
        )


def _rotate(network: Any, factors: torch.Tensor, file: Path) -> None:
    """Divide the rotary frequencies by the file's factors, and keep these in the config, which is hashed."""
    text = network.config.get_text_config()
    if (text.rope_parameters or {}).get("rope_type", "default") != "default":
        return  # transformers scales already
    turned = 0
    for module in network.modules():
        inverse = getattr(module, "inv_freq", None)
        if isinstance(inverse, torch.Tensor) and inverse.shape == factors.shape:
            module.inv_freq = inverse / factors.to(inverse)
            if hasattr(module, "original_inv_freq"):
                module.original_inv_freq = module.inv_freq.clone()
            turned += 1
    if not turned:
        raise InputError(f"{file}: {ROTATION} fits no rotation of the network; use the checkpoint it was made from")
    text.rope_factors = [float(one) for one in factors]


def _unpacked() -> dict[str, Any]:
    """Weights as floating point, never through kernels from elsewhere."""
    try:
        from transformers import GgufConfig
    except ImportError:  # before there was a choice
        return {}
    return {"quantization_config": GgufConfig(dequantize=True)}


def _need_packages() -> None:
    try:
        import accelerate  # noqa: F401
        import gguf  # noqa: F401
    except ImportError as error:
        raise InputError("reading .gguf files needs two more packages: pip install 'demur[gguf]'") from error
