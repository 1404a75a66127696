"""Autoregressive checkpoints in transformers' classes, whole or not at all.

In: a checkpoint folder, or a folder and the name of a `.gguf` file in it. Out: the network, every parameter of which
came from the files. What transformers would leave at random, leave out or only warn of is an `InputError` here.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from demur.errors import InputError
from demur.models.limits import OWN_ATTENTION, require_fitting_size, require_sane_config
from demur.models.parallel import split_options
from demur.models.weight_files import SINGLE, named, read_headers, weight_files, wrapper_prefix

DType = str | torch.dtype
COMPUTED = re.compile(r"\.masked_bias$")
"""Tensors of old files that networks now compute; further ones are buffers of the network itself."""


def build_causal(
    config: Mapping[str, Any],
    folder: Path,
    dtype: DType,
    *,
    trust_remote_code: bool,
    device_map: str | Mapping[str, Any] | None = None,
    tp_plan: str | None = None,
) -> Any:
    """The network of a folder with config.json and safetensors.

    Raises `InputError` that lists the tensors which are missing, superfluous or of another shape than the config asks
    for. A wrapper's prefix on every tensor is taken off, with a warning.
    """
    files = weight_files(folder)
    tensors = read_headers(folder, files)
    require_sane_config(config, folder, tensors)
    if config.get("transformers_weights") not in (None, files[0].name if len(files) == 1 else None):
        raise InputError(f"{folder / 'config.json'}: transformers_weights names other weights than {SINGLE}; remove it")
    prefix = wrapper_prefix(list(tensors))
    _require_known_type(config, folder, trust_remote_code=trust_remote_code)
    settings = read_settings(folder, trust_remote_code=trust_remote_code)
    _require_heads(config, settings, folder)
    _require_it_fits(settings, folder, tensors, trust_remote_code=trust_remote_code)
    options: dict[str, Any] = {"config": settings, "use_safetensors": True, "trust_remote_code": trust_remote_code}
    if device_map is not None:
        options["device_map"] = device_map
    if tp_plan is not None:
        options |= split_options(settings, folder)
    if prefix:
        warnings.warn(f"{folder}: every tensor's name begins with {prefix!r}, which was taken off", stacklevel=4)
        options["key_mapping"] = {"^" + prefix.replace(".", r"\."): ""}
    return from_files(folder, dtype, options)


def read_settings(folder: Path, **options: Any) -> Any:
    """transformers' config of a folder, which may name none but transformers' own kernels."""
    from transformers import AutoConfig

    with reading(folder):
        settings = AutoConfig.from_pretrained(folder, **options)
    for one in (settings, settings.get_text_config()):
        if getattr(one, "_attn_implementation", None) not in (None, *OWN_ATTENTION):
            one._attn_implementation = None  # the choice of kernels is this machine's, not the checkpoint's
    return settings


def from_files(folder: Path, dtype: DType, options: Mapping[str, Any], auto_class: str = "AutoModelForCausalLM") -> Any:
    """What transformers loads, if its report says that everything came from the files and nothing was left over."""
    import transformers

    with reading(folder), _quiet():
        network, report = getattr(transformers, auto_class).from_pretrained(
            folder, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )  # of another shape: kept out, and named below
    require_whole(folder, network, report)
    return network


def require_whole(folder: Path, network: Any, report: Mapping[str, Any]) -> None:
    """`InputError` naming the tensors that a loading report calls missing, unexpected or mismatched."""
    buffers = {name for name, _ in network.named_buffers()}
    inner = getattr(network, "base_model_prefix", "")
    unexpected = [
        name
        for name in report.get("unexpected_keys", ())
        if not {name, f"{inner}.{name}"} & buffers and not COMPUTED.search(name)
    ]
    mismatched = [name if isinstance(name, str) else str(name[0]) for name in report.get("mismatched_keys", ())]
    faults = {
        "missing": sorted(report.get("missing_keys", ())),
        "unexpected": sorted(unexpected),
        "of another shape": sorted(mismatched),
        "not converted": sorted(map(str, report.get("conversion_errors", None) or ())),
        "errors": [str(error) for error in report.get("error_msgs", None) or ()],
    }
    if any(faults.values()):
        said = "; ".join(f"{what} {named(names)}" for what, names in faults.items() if names)
        raise InputError(
            f"{folder}: the weights do not fit the config.json: {said}. "
            f"Get the checkpoint's files again, all of one revision"
        )


class reading:
    """Turns whatever fails inside while a folder is read into an `InputError` of one line."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, InputError):
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise InputError(f"{self.folder}: the checkpoint cannot be loaded: {reason}") from error


class _quiet:
    """Keeps transformers' own report of what did not fit off the terminal; the error says it in one line."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.before = logging.get_verbosity()
        logging.set_verbosity_error()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self.before)


def _require_known_type(config: Mapping[str, Any], folder: Path, *, trust_remote_code: bool) -> None:
    from transformers import CONFIG_MAPPING

    kind = config.get("model_type")
    if config.get("auto_map") and kind not in CONFIG_MAPPING and not trust_remote_code:
        raise InputError(
            f"{folder}: model_type {kind!r} is built by Python code that comes with the checkpoint, which runs only "
            f"with trust_remote_code=True (--trust-remote-code); read that code first"
        )


def _require_heads(config: Mapping[str, Any], settings: Any, folder: Path) -> None:
    """The number of heads changes no shape where the head's size follows from it, so it must be given."""
    text = settings.get_text_config()
    if text is not settings or not hasattr(text, "num_attention_heads") or not hasattr(text, "hidden_size"):
        return
    name = getattr(text, "attribute_map", {}).get("num_attention_heads", "num_attention_heads")
    fixed = config.get("head_dim") or getattr(type(text), "head_dim", None)
    if not fixed and not {name, "num_attention_heads"} & set(config):
        raise InputError(f"{folder / 'config.json'}: {name} is not there, and no shape tells it; get the file again")


def _require_it_fits(settings: Any, folder: Path, tensors: Mapping[str, Any], *, trust_remote_code: bool) -> None:
    """Build the network without memory first, to see whether its size is that of its weights."""
    import copy

    from transformers import AutoModelForCausalLM

    if trust_remote_code and getattr(settings, "auto_map", None):
        return  # somebody's code need not bear to be built without memory
    quantized = getattr(settings.get_text_config(), "quantization_config", None)
    quantized = quantized or getattr(settings, "quantization_config", None)
    with reading(folder), torch.device("meta"), _quiet():
        empty = AutoModelForCausalLM.from_config(copy.deepcopy(settings), trust_remote_code=False)
    require_fitting_size(empty, folder, tensors, quantized=bool(quantized))
