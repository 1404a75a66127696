"""Weights from safetensors files into a network that holds none yet.

In: a network built on torch's meta device, a checkpoint folder, and a rule that renames the folder's
tensors. Out: the network filled, tensor by tensor, so that nothing is held twice. Also `Built`, what the
module of each checkpoint format hands to `load`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from demur.errors import InputError
from demur.models.json_file import read_json
from demur.models.limits import require_fitting_size, require_sane_config
from demur.models.traits import Family
from demur.models.weight_files import named, opened, read_headers, weight_files, wrapper_prefix

DType = str | torch.dtype


class Part(NamedTuple):
    """A place inside a stacked tensor of the network, for a stored tensor of one expert.

    name : the network's tensor. It is filled at ``[expert, first:last]``.
    """

    name: str
    expert: int
    first: int
    last: int


class Rows(NamedTuple):
    """Rows of a stored tensor that are one tensor of the network: `name` takes rows `first` to `last`."""

    name: str
    first: int
    last: int


Target = str | Part | Sequence[Rows] | None
"""Where a stored tensor goes: one tensor of the network, a part of one, several that it is split into, or nowhere."""


class Mode(NamedTuple):
    """A way in which a checkpoint may be decoded: a sampler's name and the arguments its authors use."""

    sampler: str
    defaults: Mapping[str, Any]


@dataclass(frozen=True)
class Built:
    """A network that one of the checkpoint formats gave, with what `Model` needs to know of it.

    tokenizer_class : transformers' class for the tokenizer files, where the checkpoint names remote code.
    modes : ways of decoding that the config does not tell apart, by the name that `load` takes as `mode`; the first is
    taken where none is named, unless `mode_needed` says that it must be named. The other fields are those of `Model`.
    """

    network: Any
    family: Family
    eos_token_ids: list[int]
    mask_token_id: int | None = None
    logits_shifted: bool = False
    sampler_defaults: dict[str, Any] = field(default_factory=dict)
    tokenizer_class: str = "AutoTokenizer"
    samplers: tuple[str, ...] = ()
    modes: Mapping[str, Mode] = field(default_factory=dict)
    mode_needed: bool = False


def in_mode(built: Built, mode: str | None, name: str) -> Built:
    """What was built, decoded in the way that `mode` names; `InputError` for a mode there is not or that is lacking."""
    known = " or ".join(f"mode={one!r}" for one in built.modes)
    if mode is None and built.mode_needed:
        raise InputError(f"{name}: its config does not tell how it is decoded; say which it is: {known} (--mode)")
    if mode is None and not built.modes:
        return built
    if mode is not None and mode not in built.modes:
        raise InputError(f"{name}: mode is {mode!r}; " + (f"expected {known}" if known else "this model has one only"))
    chosen = built.modes[mode or next(iter(built.modes))]
    others = [one.sampler for one in built.modes.values() if one.sampler != chosen.sampler]
    samplers = tuple(dict.fromkeys([chosen.sampler, *others]))
    return replace(built, samplers=samplers, sampler_defaults=dict(chosen.defaults))


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


def mask_token(config: Mapping[str, Any], default: int, folder: Path, network: Any) -> int | None:
    """The mask token: the config's, else the official checkpoint's where the vocabulary holds it, else None."""
    if config.get("mask_token_id") is None and default >= int(network.config.vocab_size):
        return None
    return token_id(config, "mask_token_id", default, folder)


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
    network: Any, folder: Path, rename: Callable[[str], Target], dtype: DType, device: torch.device, *, tied: bool
) -> None:
    """Read every tensor of a checkpoint folder into an empty network.

    rename : from a tensor's name in the files to where it goes, see `Target`.
    dtype : "auto" keeps the files' own. tied : the head shares the embeddings' weights and is not stored.
    Raises `InputError` naming the tensors that are missing, unexpected or of another shape.
    """
    files = weight_files(folder)
    tensors = read_headers(folder, files)
    require_fitting_size(network, folder, tensors, quantized=False)
    prefix = wrapper_prefix(list(tensors))
    if prefix:
        warnings.warn(f"{folder}: every tensor's name begins with {prefix!r}, which was taken off", stacklevel=5)
    filling = _Filling(network, dtype, device, tied=tied)
    unexpected, heads = [], []
    for file in files:
        with opened(file, str(device)) as handle:
            for name in handle.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                target = rename(name.removeprefix(prefix))
                if tied and target == "lm_head.weight":
                    heads.append((name, handle.get_tensor(name)))
                elif not filling.knows(target):
                    unexpected.append(name)
                else:
                    filling.take(file, name, handle.get_tensor(name), target)
    unexpected += [name for name, head in heads if not _is_embeddings(network, head)]
    missing = filling.missing()
    if unexpected or missing:
        raise InputError(
            f"{folder}: the weights do not fit the config.json: missing {named(missing)}; "
            f"unexpected {named(unexpected)}. Get the checkpoint's files again, all of one revision"
        )
    if tied:
        network.lm_head.weight = network.get_input_embeddings().weight
    # The rotary frequencies are no weights: they are in no file, and on the meta device they were never computed.
    for module in [module for module in network.modules() if hasattr(module, "rotary_emb")]:
        module.rotary_emb = type(module.rotary_emb)(config=network.config).to(device)


class _Filling:
    """What of a network has been read. A stacked tensor is made once and its parts are read into it, one by one."""

    def __init__(self, network: Any, dtype: DType, device: torch.device, *, tied: bool) -> None:
        self.network, self.dtype, self.device = network, dtype, device
        self.shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
        if tied:
            self.shapes.pop("lm_head.weight")
        self.left = {name: shape.numel() for name, shape in self.shapes.items()}
        self.parts: set[Part] = set()

    def knows(self, target: Target) -> bool:
        """Whether everything that a stored tensor would fill is still empty."""
        if isinstance(target, Part):
            return self.left.get(target.name, 0) > 0 and target not in self.parts and self._has(target)
        names = [target] if isinstance(target, str) else [rows.name for rows in target or ()]
        return bool(names) and all(name in self.left and self._untouched(name) for name in names)

    def _untouched(self, name: str) -> bool:
        return bool(self.left[name] == self.shapes[name].numel())

    def _has(self, part: Part) -> bool:
        return 0 <= part.expert < int(self.shapes[part.name][0])

    def take(self, file: Path, name: str, tensor: torch.Tensor, target: Target) -> None:
        """Put a stored tensor where it goes; `InputError` where its shape is another."""
        if isinstance(target, str):
            _require_shape(file, name, tensor.shape, self.shapes[target])
            self._assign(target, tensor)
        elif isinstance(target, Part):
            self._stack(file, name, tensor, target)
        else:
            whole = [sum(rows.last - rows.first for rows in target or ()), *self.shapes[(target or ())[0].name][1:]]
            _require_shape(file, name, tensor.shape, whole)
            for rows in target or ():
                self._assign(rows.name, tensor[rows.first : rows.last])

    def missing(self) -> list[str]:
        """The tensors of the network that were not read, or not whole."""
        return [name for name, count in self.left.items() if count]

    def _stack(self, file: Path, name: str, tensor: torch.Tensor, part: Part) -> None:
        if self._untouched(part.name):
            whole = torch.empty(self.shapes[part.name], dtype=self._cast(tensor[:0]).dtype, device=self.device)
            _assign(self.network, part.name, whole)
        room = self.network.get_parameter(part.name).data[part.expert, part.first : part.last]
        _require_shape(file, name, tensor.shape, room.shape)
        room.copy_(tensor)
        self.parts.add(part)
        self.left[part.name] -= tensor.numel()

    def _assign(self, name: str, tensor: torch.Tensor) -> None:
        _require_shape(Path(name), name, tensor.shape, self.shapes[name])
        _assign(self.network, name, self._cast(tensor))
        self.left[name] = 0

    def _cast(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor if isinstance(self.dtype, str) else tensor.to(self.dtype)


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
    module, _, own = name.rpartition(".")
    place = network.get_submodule(module)
    if own in place._buffers:
        place._buffers[own] = tensor.to(place._buffers[own].dtype)  # kept as precise as the network's code asks
    else:
        setattr(place, own, torch.nn.Parameter(tensor))
