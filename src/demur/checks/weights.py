"""Rows about the weights: what is there, and whether it is what the files hold.

In: a model. Out: counts, and for checkpoint folders a comparison of the network's tensors with those of the
safetensors files, as many as the time allows. That nothing is missing is `load`'s business, which refuses it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from demur.bundled import bundled_model, is_bundled
from demur.checks.result import Outcome, Row
from demur.models import Model
from demur.models.formats.llada import llama_name

RENAMED: tuple[Callable[[str], str | None], ...] = (
    lambda name: name,
    llama_name,
    lambda name: f"model.{name}",
    lambda name: name.removeprefix("model."),
    lambda name: name.removeprefix("language_model."),
)
"""The names that a tensor of a file may have in the network."""


def weights_row(model: Model) -> Row:
    """Counts of tensors and parameters, and whether every value is a finite number in memory."""
    tensors = list(model.network.state_dict().items())
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    dtypes = sorted({str(one.dtype).removeprefix("torch.") for one in model.network.parameters()})
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.network.parameters())
    bad = [name for name, tensor in tensors if tensor.is_meta or not _finite(tensor)]
    value = f"{len(tensors)} tensors, {parameters / 1e6:.1f} M parameters, {', '.join(dtypes)}, {size / 1e9:.2f} GB"
    note = f"not finite or not in memory: {', '.join(bad[:5])}" if bad else ""
    numbers = {"tensors": len(tensors), "parameters": parameters, "bytes": size, "bad": len(bad)}
    return Row(
        "weights", "every tensor of the network", value, "all in memory and finite", _outcome(bad), note, numbers
    )


def files_row(model: Model, seconds: float) -> Row:
    """The network's tensors against those of the checkpoint's files, for at most `seconds`."""
    name, measured = "weights and files", "the network's tensors against the checkpoint's safetensors files"
    folder = checkpoint_folder(model)
    files = [] if folder is None else sorted(folder.glob("*.safetensors"))
    if not files:
        why = "GGUF tensors are dequantised as they are read" if model.name.endswith(".gguf") else "no files are known"
        return Row(name, measured, outcome="not run", note=f"{why}, so there is nothing to hold the network against")
    state = model.network.state_dict()
    deadline = time.monotonic() + seconds
    compared, unlike, elsewhere, total = 0, list[str](), 0, 0
    for tensor_name, read in _tensors(files):
        total += 1
        target = next((new for rename in RENAMED if (new := rename(tensor_name)) in state), None)
        if target is None:
            elsewhere += 1
        elif time.monotonic() < deadline:
            compared += 1
            if not _same(read(), state[target]):
                unlike.append(tensor_name)
    value = f"{compared - len(unlike)} of {compared} compared are equal, {total} in the files"
    note = f"unlike: {', '.join(unlike[:5])}" if unlike else ""
    if elsewhere:
        note = "; ".join(filter(None, [note, f"{elsewhere} have another name or shape in the network"]))
    numbers = {"compared": compared, "unlike": len(unlike), "elsewhere": elsewhere, "total": total}
    outcome: Outcome = "not run" if not compared else _outcome(unlike)
    return Row(name, measured, value, "equal after conversion to the dtype", outcome, note, numbers)


def checkpoint_folder(model: Model) -> Path | None:
    """The folder that a model was loaded from, a Hub model's in the local cache; None where there is none."""
    if is_bundled(model.name):
        return bundled_model(model.name)
    if Path(model.name).expanduser().is_dir():
        return Path(model.name).expanduser()
    if model.name.count("/") != 1 or model.name.endswith(".gguf"):
        return None
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model.name, revision=model.revision, local_files_only=True))
    except (OSError, ValueError):
        return None


def _tensors(files: list[Path]) -> Iterator[tuple[str, Callable[[], torch.Tensor]]]:
    """Names of tensors with a way to read each."""
    from safetensors import safe_open

    for file in files:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 (a safetensors handle is no mapping)
                yield name, lambda opened=opened, name=name: opened.get_tensor(name)  # type: ignore[misc]


def _same(read: torch.Tensor, held: torch.Tensor) -> bool:
    return read.shape == held.shape and torch.equal(read.to(held.dtype), held.cpu())


def _finite(tensor: torch.Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _outcome(bad: list[str]) -> Outcome:
    return "failed" if bad else "ok"
