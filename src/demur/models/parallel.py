"""One network split over several processes by transformers' tensor-parallel plan, as torchrun starts them.

In: the group of processes, the first of which speaks for all. Out: what transformers needs to split a network, weights
whole again one at a time, and values that every process has from the first. States between blocks are whole on every
process, so all else of demur reads them as ever.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from demur.errors import InputError

if TYPE_CHECKING:
    from demur.models.model import Model


def group_size() -> int:
    """How many processes torchrun started together, this one among them; 1 without torchrun."""
    if dist.is_available() and dist.is_initialized():
        return int(dist.get_world_size())
    number = os.environ.get("WORLD_SIZE", "1")
    return int(number) if number.isdecimal() else 1


def is_first() -> bool:
    """Whether this process is the first of its group, or alone."""
    if dist.is_available() and dist.is_initialized():
        return int(dist.get_rank()) == 0
    return os.environ.get("RANK", "0") == "0"


def processes_of(model: Model) -> int:
    """Over how many processes the network of a model is split; 1 where it is whole."""
    return int(model.execution.get("tp_size", 1))


def require_one_process(model: Model, what: str) -> None:
    """Refuse a job that is not made for a network which is split over processes."""
    if processes_of(model) > 1:
        raise InputError(
            f"{model.name}: is split over {processes_of(model)} processes (tp_plan), and {what} runs in one; load it "
            f"without tp_plan, or record with it and go on from the recording"
        )


def split_options(settings: Any, folder: Any) -> dict[str, Any]:
    """What `from_pretrained` needs to split a network over the group.

    settings : transformers' config. Raises `InputError` where the network has no plan, or its heads do not divide.
    """
    from transformers import distributed

    config = getattr(distributed, "DistributedConfig", None)
    if "tp_plan" not in getattr(config, "__dataclass_fields__", {}):
        raise InputError("tp_plan needs a newer transformers (5.23 has it): pip install --upgrade transformers")
    text, size = settings.get_text_config(), group_size()
    if not getattr(text, "base_model_tp_plan", None):
        raise InputError(f"{folder}: transformers has no tensor-parallel plan for {text.model_type}; leave tp_plan out")
    for name in ("num_attention_heads", "num_key_value_heads"):
        if (heads := getattr(text, name, None)) and heads % size:
            raise InputError(
                f"{folder}: its {heads} {name} cannot be split over {size} processes; give torchrun a number of "
                f"processes that divides {heads}, or leave tp_plan out"
            )
    return {"distributed_config": config(tp_size=size, tp_plan="auto")}  # type: ignore[misc]


def is_split(tensor: Any) -> bool:
    """Whether a process holds only its share of a tensor."""
    return hasattr(tensor, "full_tensor")


def own_share(tensor: Any) -> torch.Tensor:
    """What this process holds of a tensor."""
    share: torch.Tensor = tensor.to_local() if is_split(tensor) else tensor
    return share


def whole(tensor: Any) -> torch.Tensor:
    """The whole tensor, on every process. All processes must ask for the same one at the same time."""
    found: torch.Tensor = tensor.full_tensor() if is_split(tensor) else tensor
    return found


def from_first(value: Any) -> Any:
    """The first process's `value`, on every process; all must call this at the same time."""
    box = [value if is_first() else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def of_all(value: Any) -> list[Any]:
    """The value that each process gives, on every process; all must call this at the same time."""
    found: list[Any] = [None] * group_size()
    dist.all_gather_object(found, value)
    return found
