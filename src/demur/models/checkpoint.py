"""Weights from safetensors files into a network that holds none yet.

In: a network built on torch's meta device, a checkpoint folder, and a rule that renames the folder's
tensors. Out: the network filled, tensor by tensor, so that nothing is held twice. Also `Built`, what the
module of each checkpoint format hands to `load`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from demur.errors import InputError
from demur.models.json_file import read_json
from demur.models.limits import require_fitting_size, require_sane_config
from demur.models.model import Family
from demur.models.weight_files import named, opened, read_headers, weight_files, wrapper_prefix

DType = str | torch.dtype


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


def token_id(config: Mapping[str, Any], key: str, default: int, folder: Path) -> int:
    """The token id that a config names, or the official checkpoint's; `InputError` where it is no whole number."""
    value = default if config.get(key) is None else config[key]
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{folder / 'config.json'}: {key} is {value!r}, expected a token id")
    return value


def empty(make: Callable[[], Any], folder: Path) -> Any:
    """The network that `make` builds from a folder's config, with parameters that take no memory."""
    require_sane_config(read_json(folder / "config.json"), folder, read_headers(folder, weight_files(folder)))
    try:
        with torch.device("meta"):
            return make()
    except Exception as error:  # a config can be wrong in any way
        raise InputError(
            f"{folder / 'config.json'}: no network can be built from it: {' '.join(repr(error).split())[:300]}"
        ) from error


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
    files = weight_files(folder)
    tensors = read_headers(folder, files)
    require_fitting_size(network, folder, tensors, quantized=False)
    prefix = wrapper_prefix(list(tensors))
    if prefix:
        warnings.warn(f"{folder}: every tensor's name begins with {prefix!r}, which was taken off", stacklevel=5)
    unexpected, heads = [], []
    for file in files:
        with opened(file, str(device)) as handle:
            for name in handle.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                target = rename(name.removeprefix(prefix))
                if tied and target == "lm_head.weight":
                    heads.append((name, handle.get_tensor(name)))
                    continue
                if target not in wanted or target is None:
                    unexpected.append(name)
                    continue
                tensor = handle.get_tensor(name)
                _require_shape(file, name, tensor.shape, wanted.pop(target))
                _assign(network, target, tensor if dtype == "auto" else tensor.to(dtype))
    unexpected += [name for name, head in heads if not _is_embeddings(network, head)]
    if unexpected or wanted:
        raise InputError(
            f"{folder}: the weights do not fit the config.json: missing {named(list(wanted))}; "
            f"unexpected {named(unexpected)}. Get the checkpoint's files again, all of one revision"
        )
    if tied:
        network.lm_head.weight = network.get_input_embeddings().weight
    # The rotary frequencies are no weights: they are in no file, and on the meta device they were never computed.
    for module in [module for module in network.modules() if hasattr(module, "rotary_emb")]:
        module.rotary_emb = type(module.rotary_emb)(config=network.config).to(device)


def _require_shape(file: Path, name: str, found: Sequence[int], expected: Sequence[int]) -> None:
    if tuple(found) != tuple(expected):
        raise InputError(
            f"{file}: tensor {name} has shape {list(found)}, but the config.json asks for {list(expected)}; "
            f"the two are not of one checkpoint"
        )


def _is_embeddings(network: Any, head: torch.Tensor) -> bool:
    """Whether the head that a file holds beside tied embeddings is these embeddings."""
    embeddings = network.get_input_embeddings().weight
    return embeddings.shape == head.shape and not embeddings.is_meta and torch.equal(embeddings, head.to(embeddings))


def _assign(network: Any, name: str, tensor: torch.Tensor) -> None:
    module, _, parameter = name.rpartition(".")
    setattr(network.get_submodule(module), parameter, torch.nn.Parameter(tensor))
