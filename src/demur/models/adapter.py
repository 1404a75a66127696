"""PEFT adapters: put into their base model, or refused; a base is never loaded without the adapter beside it.

In: a folder with adapter_config.json. Out: the base model that belongs to it, and that base's network with the
adapter merged into its weights. Only safetensors are read, and every tensor of the adapter must find its place.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.models.formats.causal import reading
from demur.models.json_file import read_json
from demur.models.weight_files import has_weights, named, opened

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
CODE = ("megatron_config", "layer_replication")
"""Settings that import modules by name, or make the network larger than its base."""
SIZES = ("r", "rank", "num_virtual_tokens")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter, with or without its base beside it."""
    return (folder / CONFIG).is_file() or any(folder.glob("adapter_model*"))


def base_of(folder: Path) -> str | None:
    """The name of an adapter's base model, None where it lies beside the adapter; `InputError` if it cannot be used."""
    settings = _settings(folder)
    if (folder / "config.json").is_file() and has_weights(folder):
        return None
    base = settings.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(f"{folder / CONFIG}: the adapter names no base model; put base_model_name_or_path into it")
    return base


def merged(network: Any, folder: Path) -> Any:
    """The network with the adapter's changes added to its weights."""
    from peft import PeftModel, get_peft_model_state_dict

    with reading(folder):
        adapted = PeftModel.from_pretrained(network, str(folder), autocast_adapter_dtype=False)
    landed = get_peft_model_state_dict(adapted)
    with opened(folder / WEIGHTS) as tensors:
        names = set(tensors.keys())
        odd = sorted(name for name in names & set(landed) if not _same(tensors.get_tensor(name), landed[name]))
    missing, unexpected = sorted(set(landed) - names), sorted(names - set(landed))
    if odd or missing or unexpected:
        raise InputError(
            f"{folder}: the adapter does not fit its base model: missing {named(missing)}; "
            f"unexpected {named(unexpected)}; not taken over {named(odd)}. Give the base it was trained on"
        )
    with reading(folder):
        return adapted.merge_and_unload(safe_merge=True).eval()


@contextmanager
def without_adapter(folder: Path) -> Iterator[Path]:
    """A folder of links to the base's files, so that no reader applies the adapter by itself."""
    with tempfile.TemporaryDirectory(prefix="demur-") as place:
        for file in folder.iterdir():
            if not file.name.startswith("adapter_"):
                (Path(place) / file.name).symlink_to(file.absolute())
        try:
            yield Path(place)
        except InputError as error:
            raise InputError(str(error).replace(place, str(folder))) from error


def _settings(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).is_file():
        raise InputError(f"{folder}: holds the weights of an adapter but no {CONFIG}; get the adapter's files again")
    settings = read_json(folder / CONFIG)
    if not (folder / WEIGHTS).is_file():
        raise InputError(
            f"{folder}: is an adapter without {WEIGHTS}; pickled adapters are never read: load it with peft where you "
            f"trust it and call save_pretrained(folder)"
        )
    for key in CODE:
        if settings.get(key):
            raise InputError(f"{folder / CONFIG}: the adapter sets {key}, which is not supported; merge it with peft")
    with opened(folder / WEIGHTS) as tensors:
        widest = max((size for name in tensors.keys() for size in tensors.get_slice(name).get_shape()), default=0)  # noqa: SIM118
    for key in SIZES:
        value = settings.get(key)
        if isinstance(value, int) and value > max(widest, 1):
            raise InputError(f"{folder / CONFIG}: {key} is {value}, but no tensor of the adapter has that many rows")
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"{folder}: holds an adapter, which needs one more package: pip install 'demur[peft]'; "
            f"or merge it into its base with peft and give that folder"
        ) from error
    return settings


def _same(stored: Any, landed: Any) -> bool:
    import torch

    return stored.shape == landed.shape and torch.equal(stored.to(landed.device, landed.dtype), landed)
