"""How a network is run: which attention and cache, compiled or not, on which devices. None of it changes what is
computed but for rounding, all of it is in the provenance, and `demur check` with the same options proves it.

In: what `load` was told. Out: options for transformers, and a network that runs that way; what cannot be had is an
`InputError`. Also which quantised checkpoints can be loaded here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from demur.errors import InputError
from demur.models.parallel import group_size

if TYPE_CHECKING:
    from demur.models.model import Model

VARIANTS = 16
"""Of a compiled block: with and without a cache or a mask, one row or many, one token or many; about 9 occur."""

QUANTISED = {
    "awq": "gptqmodel",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed_tensors",
    "gptq": "gptqmodel",
    "quanto": "optimum.quanto",
    "torchao": "torchao",
}
"""The package that runs a checkpoint of each method of quantisation."""


CACHE_KINDS = ("dynamic", "static")
"""The caches of transformers that hold every key and value as it was computed, so that states are the same."""


@dataclass(frozen=True)
class Execution:
    """What `load` was told of how to run a network; see there."""

    attention: str | None = None
    compile: bool = False
    device_map: str | Mapping[str, Any] | None = None
    cache: str | None = None
    tp_plan: str | None = None

    def describe(self) -> dict[str, Any]:
        """What was asked for, as plain values; empty where all is as transformers has it."""
        where = self.device_map
        if isinstance(where, Mapping):
            where = {module: str(device) for module, device in where.items()}
        found: dict[str, Any] = {"attention": self.attention, "compile": self.compile, "device_map": where}
        found |= {"cache": self.cache, "tp_plan": self.tp_plan, "tp_size": group_size() if self.tp_plan else 0}
        return {name: value for name, value in found.items() if value}

    @property
    def is_placed(self) -> bool:
        """Whether transformers puts the weights where they belong, on several devices or in several processes."""
        return self.device_map is not None or self.tp_plan is not None

    def require_cache(self, name: str) -> None:
        """Refuse a cache that does not keep what is put into it, or that demur does not know."""
        if self.cache is not None and self.cache not in CACHE_KINDS:
            raise InputError(
                f"{name}: cache {self.cache!r} is none of {' and '.join(CACHE_KINDS)}; others round, drop or move keys "
                f"and values, and their states may not be those of a plain pass"
            )

    def require_placeable(self, name: str, device: str, *, is_plain: bool) -> None:
        """Refuse a device map beside a device, and for what transformers does not load by itself."""
        if self.tp_plan is not None:
            self._require_splittable(name, device, is_plain=is_plain)
        if self.device_map is None:
            return
        if device != "auto":
            raise InputError(f"{name}: device {device!r} and device_map exclude each other; leave one of them out")
        if not is_plain:
            raise InputError(
                f"{name}: device_map is for folders of safetensors in transformers' own classes, and this is an "
                f"adapter, a .gguf file or a diffusion model; give a device"
            )
        if find_spec("accelerate") is None:
            raise InputError("device_map needs accelerate: pip install accelerate")

    def _require_splittable(self, name: str, device: str, *, is_plain: bool) -> None:
        """Refuse a tensor-parallel plan in one process, beside what excludes it, and for other checkpoints."""
        if self.tp_plan != "auto":
            raise InputError(
                f"{name}: tp_plan is {self.tp_plan!r}; give 'auto', which is transformers' plan of the class"
            )
        beside = {"device": device != "auto", "device_map": self.device_map is not None, "compile": self.compile}
        if given := [option for option, is_given in beside.items() if is_given]:
            raise InputError(f"{name}: {given[0]} and tp_plan exclude each other; leave one of them out")
        if not is_plain:
            raise InputError(
                f"{name}: tp_plan is for folders of safetensors in transformers' own classes, and this is an adapter, "
                f"a .gguf file or a diffusion model; leave it out"
            )
        if group_size() < 2:
            raise InputError(
                f"{name}: tp_plan splits a network over several processes, and this is one alone; start the program "
                f"with torchrun --nproc-per-node N, with a GPU for each of the N"
            )


def attend(network: Any, attention: str | None, name: str) -> None:
    """Let a network attend as one of transformers' implementations."""
    if attention is None:
        return
    try:
        network.set_attn_implementation(attention)
    except Exception as error:  # an unknown name, a package that is missing, a class without that kernel
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{name}: attention {attention!r} cannot be had here: {reason}") from error


def require_in_memory(network: Any, name: str) -> None:
    """Refuse weights that were left on the disk or are moved in for every pass, which cannot be hashed or proven."""
    if any(one.is_meta for one in network.parameters()):
        raise InputError(
            f"{name}: the device map leaves weights outside the devices that compute, so they cannot be proven; give "
            f"devices that hold all of them, or a smaller dtype"
        )


def quantisation_in(network: Any) -> dict[str, Any]:
    """The quantisation config of a network as plain values; empty where its weights are not quantised."""
    found = getattr(network.config, "quantization_config", None)
    values: Any = found if found is None or isinstance(found, Mapping) else found.to_dict()
    plain: dict[str, Any] = json.loads(json.dumps(values or {}, default=str, sort_keys=True))
    return plain


def settle(network: Any) -> None:
    """Let one token pass through a network.

    Some methods of quantisation unpack their weights in the first pass; a fingerprint taken before is not that of what
    computes.
    """
    with torch.inference_mode():
        network(torch.zeros((1, 1), dtype=torch.int64, device=network.get_input_embeddings().weight.device))


def try_split(network: Any, name: str) -> None:
    """Let one token pass through a split network, because some plans do not fit a config and fail only then."""
    try:
        settle(network)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name}: transformers' plan does not run over {group_size()} processes: {reason}; "
            f"give torchrun another number of processes, or leave tp_plan out"
        ) from error


def compile_blocks(model: Model) -> None:
    """Compile the forward pass of every block by itself, so that states are still read between blocks.

    The network as a whole is not compiled: hooks that are set on a compiled module later would be passed over. All
    blocks share one function, of which torch compiles eight variants and runs whatever is beyond them uncompiled; the
    limit is raised to what all blocks need.
    """
    blocks = list(model.blocks())
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, VARIANTS * len(blocks))
    settings.accumulated_recompile_limit = max(settings.accumulated_recompile_limit, settings.recompile_limit)
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=True)


def quantisation_of(settings: Mapping[str, Any], folder: Path) -> str | None:
    """The method by which a checkpoint is quantised, None where it is not; `InputError` where it cannot be run here."""
    text = settings.get("text_config")
    inner = text.get("quantization_config") if isinstance(text, Mapping) else None
    found = settings.get("quantization_config") or inner
    if not found:
        return None
    method = str(found.get("quant_method")) if isinstance(found, Mapping) else "None"
    package = QUANTISED.get(method)
    if package is not None and find_spec(package.partition(".")[0]) is None:
        raise InputError(
            f"{folder}: is quantised with {method}, which needs the package {package}; install it, or give a "
            f"checkpoint that is not quantised"
        )
    return method
