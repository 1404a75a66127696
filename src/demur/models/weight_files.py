"""Which files hold a checkpoint's weights, and which tensors stand in them.

In: a checkpoint folder. Out: its safetensors files, all of them and nothing outside the folder, and the names,
shapes and sizes in their headers. No tensor is read here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from demur.errors import InputError
from demur.models.json_file import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.bin.index.json")
SHARD = re.compile(r".*-\d{5}-of-\d{5}\.safetensors|shard-\d{5}-model-.*\.safetensors")
WRAPPERS = ("_orig_mod.", "module.", "_fsdp_wrapped_module.", "base_model.model.", "_forward_module.")
"""What torch.compile, DataParallel, FSDP, PEFT and Lightning put before the names of a network they wrap."""
NAMED = 5
"""How many of the missing or unexpected tensors an error names."""


class TensorSize(NamedTuple):
    """What a safetensors header says of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


def has_weights(folder: Path) -> bool:
    """Whether a folder holds safetensors weights of a whole model, by their usual names."""
    return (folder / SINGLE).is_file() or (folder / INDEX).is_file()


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, one or those its index names.

    Raises `InputError` where there are none, where a file is missing or not named by the index, or where the index
    names a file outside the folder.
    """
    if not has_weights(folder):
        raise _no_weights(folder)
    listed = [SINGLE]
    if (folder / INDEX).is_file():
        indexed = indexed_files(folder)
        if (folder / SINGLE).is_file() and indexed != [SINGLE]:
            raise InputError(
                f"{folder}: holds {SINGLE} and {INDEX}, which names other files; remove what is not of this model"
            )
        listed = indexed
    found = {path.name for path in folder.glob("*.safetensors") if SHARD.fullmatch(path.name)}
    if unlisted := sorted(found - set(listed)):
        raise InputError(
            f"{folder}: {named(unlisted)} belongs to a split checkpoint but is not among the weights that would be "
            f"read ({named(listed)}); get {INDEX} and all its files again, or remove what is not of this model"
        )
    return [folder / name for name in listed]


def indexed_files(folder: Path) -> list[str]:
    """The names of the files in a folder's index, each of them inside the folder and there."""
    index = folder / INDEX
    mapped = read_json(index).get("weight_map")
    if not isinstance(mapped, dict) or not mapped or not all(isinstance(name, str) for name in mapped.values()):
        raise InputError(f"{index}: has no weight_map from tensors to files; get it again")
    names = sorted(set(mapped.values()))
    outside = [name for name in names if not is_inside(name)]
    if outside:
        raise InputError(f"{index}: names {named(outside)}, outside the checkpoint's folder, which is never read")
    others = [name for name in names if not name.endswith(".safetensors")]
    if others:
        raise InputError(f"{index}: names {named(others)}, which is no safetensors file; get it again")
    lacking = [name for name in names if not (folder / name).is_file()]
    if lacking:
        raise InputError(f"{folder}: {INDEX} names {named(lacking)}, which is not there; get it again")
    return names


def is_inside(name: str) -> bool:
    """Whether a file name that a checkpoint gives stays inside its folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    return bool(name) and not path.is_absolute() and ".." not in path.parts and ":" not in path.parts[0]


def read_headers(folder: Path, files: Sequence[Path]) -> dict[str, TensorSize]:
    """The size of every tensor in these files; `InputError` for a damaged file, a tensor twice or one not there."""
    found: dict[str, TensorSize] = {}
    for file in files:
        with opened(file) as tensors:
            for name in tensors.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                if name in found:
                    raise InputError(f"{folder}: tensor {name} stands in two files; get the checkpoint again")
                part = tensors.get_slice(name)
                found[name] = TensorSize(tuple(part.get_shape()), str(part.get_dtype()))
    if not found:
        raise InputError(f"{folder}: the weight files hold no tensor; get them again")
    if (folder / INDEX).is_file():
        lacking = sorted(set(read_json(folder / INDEX)["weight_map"]) - set(found))
        if lacking:
            raise InputError(f"{folder}: {INDEX} names {named(lacking)}, which is in none of its files; get them again")
    return found


def wrapper_prefix(names: Sequence[str]) -> str:
    """What known wrappers put before the name of every tensor; empty where they put nothing.

    A bare ``model.`` counts only where another ``model.`` follows it, for many networks have one of their own.
    """
    prefix = ""
    while names:
        left = [name.removeprefix(prefix) for name in names]
        doubled = all(name.startswith("model.") for name in left) and any(n.startswith("model.model.") for n in left)
        more = next((one for one in WRAPPERS if all(name.startswith(one) for name in left)), "model." * doubled)
        if not more:
            return prefix
        prefix += more
    return prefix


def opened(file: Path, device: str = "cpu") -> Any:
    """A safetensors file, open for reading; `InputError` where it is damaged or cannot be opened."""
    from safetensors import SafetensorError, safe_open

    try:
        return safe_open(file, framework="pt", device=device)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file}: is damaged ({error}); get it again") from error
    except RuntimeError as error:  # torch's, where the system opens no more files
        raise InputError(f"{file}: cannot be opened ({error}); see the limit of open files (ulimit -n)") from error


def named(names: Sequence[str]) -> str:
    """A short list of names for an error."""
    if not names:
        return "none"
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _no_weights(folder: Path) -> InputError:
    pickled = [file.name for pattern in PICKLED for file in sorted(folder.glob(pattern))]
    ggufs = sorted(file.name for file in folder.glob("*.gguf"))
    if pickled:
        return InputError(
            f"{folder}: its weights are pickled ({named(pickled)}), and demur never unpickles; convert them: load them "
            f"with transformers where you trust them, and call save_pretrained(folder), which writes safetensors"
        )
    if ggufs:
        return InputError(f"{folder}: holds no safetensors but .gguf files ({named(ggufs)}); name one with gguf_file")
    others = sorted(file.name for file in folder.glob("*.safetensors"))
    return InputError(
        f"{folder}: holds no {SINGLE} and no {INDEX} (other weights: {named(others)}); "
        f"pickled weights (.bin, .pt) are never read: convert them with transformers' save_pretrained(folder)"
    )
