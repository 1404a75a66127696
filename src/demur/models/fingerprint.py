"""The content identity of a model: a hash of what it computes with, never of its name or files.

In: a network and its tokenizer in memory. Out: hex digests. The same weights have one digest whether they came from
one file or many, from safetensors or `.gguf`, tied or twice, with a wrapper's prefix or without.
Large tensors are hashed in chunks by several threads: an 8B checkpoint takes seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from demur.errors import InputError
from demur.models.parallel import from_first, is_split, own_share, whole
from demur.models.weight_files import wrapper_prefix

CHUNK = 64 << 20
NOT_COMPUTED = re.compile(
    r"_name_or_path|name_or_path|architectures|auto_map|(torch_)?dtype|transformers_version|\w*token_id|vocab_size"
    r"|id2label|label2id|problem_type|num_labels|use_cache|return_dict|output_\w+|\w*dropout\w*|\w*pdrop|initializer_\w+"
    r"|tie_word_embeddings|pretraining_tp|quantization_config|chunk_size_feed_forward|is_encoder_decoder|bos_\w+"
    r"|router_aux_loss_coef|_\w+"
)
"""Keys of a config that change no hidden state, or that the weights themselves tell."""

_known: WeakKeyDictionary[Any, tuple[bytes, str]] = WeakKeyDictionary()
_tokenizers: WeakKeyDictionary[Any, tuple[int, str]] = WeakKeyDictionary()


def network_hash(network: Any) -> str:
    """blake2b over a network's parameters, persistent buffers and config; computed again when a weight has changed.

    A network that is split over processes is hashed by all of them together, once, when it is loaded: later any one may
    ask alone. Raises `InputError` where its weights were edited since.
    """
    stamp = network_stamp(network)
    if network not in _known or _known[network][0] != stamp:
        shared = any(is_split(tensor) for tensor in _tensors(network).values())
        if shared and network in _known:
            raise InputError("the weights of a network that is split over processes were edited; save it and load anew")
        content = json.dumps([_tensor_hashes(network), computed_config(network.config)], sort_keys=True)
        found = hashlib.blake2b(content.encode(), digest_size=32).hexdigest()
        _known[network] = stamp, from_first(found) if shared else found
    return _known[network][1]


def network_stamp(network: Any) -> bytes:
    """Sums over the bits of every weight and the config: cheap, and changed by any edit in place."""
    import torch

    sums = [_bit_sums(own_share(tensor.detach())) for tensor in _tensors(network).values()]
    found = torch.stack([one.cpu() for one in sums]) if sums else torch.zeros(0)
    settings = json.dumps(computed_config(network.config), sort_keys=True)
    return hashlib.blake2b(found.numpy().tobytes() + settings.encode(), digest_size=32).digest()


def tokenizer_hash(tokenizer: Any) -> str:
    """blake2b over vocabulary, merges and rules of a tokenizer; empty where there is none."""
    if tokenizer is None:
        return ""
    size = len(tokenizer)
    if tokenizer not in _tokenizers or _tokenizers[tokenizer][0] != size:
        _tokenizers[tokenizer] = size, _tokenizer_hash(tokenizer)
    return _tokenizers[tokenizer][1]


def computed_config(config: Any) -> dict[str, Any]:
    """The keys of a config that shape what is computed; those the class does not know are left out."""
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    try:
        known = {*type(text)().to_dict(), "rope_factors"}
    except Exception:  # a class that cannot be made without arguments
        known = None
    values = text.to_dict() if hasattr(text, "to_dict") else {}
    kept = {k: v for k, v in values.items() if (known is None or k in known) and not NOT_COMPUTED.fullmatch(k)}
    found: dict[str, Any] = _plain(kept)
    return found


def files_hash(paths: Iterable[Path]) -> str:
    """blake2b over the names and bytes of files: the content of a local checkpoint in demur 0.1."""
    ordered = sorted(paths, key=lambda path: path.name)
    chunks = [(path, start) for path in ordered for start in range(0, max(path.stat().st_size, 1), CHUNK)]
    digest = hashlib.blake2b(digest_size=32)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for (path, start), part in zip(chunks, pool.map(_chunk_hash, chunks), strict=True):
            digest.update(f"{path.name}@{start}:".encode() + part)
    return digest.hexdigest()


def _tensors(network: Any) -> dict[str, Any]:
    """Parameters and persistent buffers by name, without what wrappers put before the names."""
    found = dict(network.state_dict())
    prefix = wrapper_prefix(list(found))
    return {name.removeprefix(prefix): found[name] for name in sorted(found) if hasattr(found[name], "dtype")}


def _tensor_hashes(network: Any) -> list[list[str]]:
    """Name, shape and digest of every tensor; one that stands at two names is read once."""
    import torch

    by_place: dict[tuple[Any, ...], Any] = {}
    places: dict[str, tuple[Any, ...]] = {}
    for name, tensor in _tensors(network).items():
        start = 0 if is_split(tensor) else tensor.data_ptr()
        place = (start, tuple(tensor.shape), tensor.stride(), tensor.dtype, str(tensor.device))
        places[name] = place if start else (name,)
        by_place.setdefault(places[name], tensor)
    digests: dict[tuple[Any, ...], str] = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for place, tensor in by_place.items():
            data = whole(tensor.detach()).cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            parts = pool.map(_bytes_hash, [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)])
            digests[place] = hashlib.blake2b(b"".join(parts), digest_size=32).hexdigest()
    kinds = {name: f"{tensor.dtype} {list(tensor.shape)}" for name, tensor in _tensors(network).items()}
    return [[name, kinds[name], digests[place]] for name, place in places.items()]


def _bit_sums(tensor: Any) -> Any:
    """Two whole numbers that change with any bit of a tensor and with the order of its rows and columns."""
    import torch

    data = tensor.contiguous().reshape(-1).view(torch.uint8)
    whole = data[: len(data) // 8 * 8].view(torch.int64)
    width = max(min(1024, len(whole) // 2), 1)
    rows = whole[: len(whole) // width * width].view(-1, width)
    rest = whole[rows.numel() :].sum() + data[len(data) // 8 * 8 :].sum()
    sums = [rows.sum(axis) for axis in (0, 1)]
    weighed = [(one * (2 * torch.arange(len(one), device=one.device) + 1)).sum() for one in sums]
    return torch.stack([weighed[0] + rest, weighed[1]])


def _tokenizer_hash(tokenizer: Any) -> str:
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if hasattr(backend, "to_str"):
        rules = json.loads(backend.to_str())
        rules.update(truncation=None, padding=None)  # left there by the last call
    else:
        model: Any = getattr(tokenizer, "sp_model", None)
        proto = model.serialized_model_proto() if hasattr(model, "serialized_model_proto") else b""
        rules = {"vocabulary": tokenizer.get_vocab(), "model": hashlib.sha256(proto).hexdigest()}
    return hashlib.blake2b(json.dumps(rules, sort_keys=True).encode(), digest_size=32).hexdigest()


def _plain(value: Any) -> Any:
    """JSON values without empty entries; numbers as float32 holds them, as `.gguf` files store them."""
    import numpy as np

    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in sorted(value.items(), key=lambda pair: str(pair[0])) if v is not None}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float):
        short = float(np.float32(value))
        return int(short) if short.is_integer() else short
    return value if isinstance(value, bool | int | str) or value is None else str(value)


def _bytes_hash(data: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=32).digest()


def _chunk_hash(chunk: tuple[Path, int]) -> bytes:
    path, start = chunk
    with path.open("rb") as file:
        file.seek(start)
        return _bytes_hash(file.read(CHUNK))
