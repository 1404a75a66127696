"""Weights from safetensors files into a network that holds none yet.

In: a network built on torch's meta device, a checkpoint folder, and a rule that renames the folder's
tensors. Out: the network filled, tensor by tensor, so that nothing is held twice. Also `Built`, what the
module of each checkpoint format hands to `load`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from demur.errors import InputError
from demur.models.model import Family

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth")
DType = str | torch.dtype
NAMED = 5
"""How many of the missing or unexpected tensors an error names."""


@dataclass(frozen=True)
class Built:
    """A network that one of the checkpoint formats gave, with what `Model` needs to know of it.

    tokenizer_class : transformers' class for the tokenizer files, where the checkpoint names remote code.
    The other fields are those of `Model`.
    """

    network: Any
    family: Family
    eos_token_ids: list[int]
    mask_token_id: int | None = None
    logits_shifted: bool = False
    sampler_defaults: dict[str, Any] = field(default_factory=dict)
    tokenizer_class: str = "AutoTokenizer"


def unsupported(folder: Path, key: str, value: Any, supported: str) -> InputError:
    """The error for a config that asks for something the format's module does not cover."""
    return InputError(
        f"{folder / 'config.json'}: {key} is {value!r}; supported is {supported}. Load the checkpoint with its "
        f"own code and hand the network to demur.models.from_network"
    )


def empty(make: Callable[[], Any], folder: Path) -> Any:
    """The network that `make` builds from a folder's config, with parameters that take no memory."""
    try:
        with torch.device("meta"):
            return make()
    except (AssertionError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{folder / 'config.json'}: no network can be built from it: {error!r}") from error


def fill(
    network: Any, folder: Path, rename: Callable[[str], str | None], dtype: DType, device: torch.device, *, tied: bool
) -> None:
    """Read every tensor of a checkpoint folder into an empty network.

    rename : from a tensor's name in the files to the network's, None where it has no place.
    dtype : "auto" keeps the files' own. tied : the head shares the embeddings' weights and is not stored.
    Raises `InputError` naming the tensors that are missing, unexpected or of another shape.
    """
    wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
    if tied:
        wanted.pop("lm_head.weight")
    unexpected = []
    for file in weight_files(folder):
        with _opened(file, device) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                target = rename(name)
                if target not in wanted or target is None:
                    unexpected.append(name)
                    continue
                tensor = tensors.get_tensor(name)
                _require_shape(file, name, tensor.shape, wanted.pop(target))
                _assign(network, target, tensor if dtype == "auto" else tensor.to(dtype))
    if unexpected or wanted:
        raise InputError(
            f"{folder}: the weights do not fit the config.json: missing {_named(list(wanted))}; "
            f"unexpected {_named(unexpected)}. Get the checkpoint's files again, all of one revision"
        )
    if tied:
        network.lm_head.weight = network.get_input_embeddings().weight
    # The rotary frequencies are no weights: they are in no file, and on the meta device they were never computed.
    for module in [module for module in network.modules() if hasattr(module, "rotary_emb")]:
        module.rotary_emb = type(module.rotary_emb)(config=network.config).to(device)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, one or those its index names; `InputError` if there are none."""
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file():
        return [single]
    if not index.is_file():
        others = [file.name for pattern in OTHER_WEIGHTS for file in sorted(folder.glob(pattern))]
        raise InputError(
            f"{folder}: holds no {SINGLE} and no {INDEX} (other weights: {_named(others)}); this model needs "
            f"safetensors, which load without running pickled code: get or convert the checkpoint in that format"
        )
    files = [folder / name for name in sorted(set(json.loads(index.read_text())["weight_map"].values()))]
    lacking = [file.name for file in files if not file.is_file()]
    if lacking:
        raise InputError(f"{folder}: {INDEX} names {_named(lacking)}, which is not there; get it again")
    return files


def _opened(file: Path, device: torch.device) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt", device=str(device))
    except SafetensorError as error:
        raise InputError(f"{file}: is damaged ({error}); get it again") from error


def _require_shape(file: Path, name: str, found: Sequence[int], expected: Sequence[int]) -> None:
    if tuple(found) != tuple(expected):
        raise InputError(
            f"{file}: tensor {name} has shape {list(found)}, but the config.json asks for {list(expected)}; "
            f"the two are not of one checkpoint"
        )


def _assign(network: Any, name: str, tensor: torch.Tensor) -> None:
    module, _, parameter = name.rpartition(".")
    setattr(network.get_submodule(module), parameter, torch.nn.Parameter(tensor))


def _named(names: Sequence[str]) -> str:
    if not names:
        return "none"
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
