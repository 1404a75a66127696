"""The content identity of a checkpoint: hashes of what was read, never of its name.

In: files or a module. Out: a hex digest. Files are hashed in chunks by several threads, so that an
8B checkpoint takes seconds and not half a minute.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

CHUNK = 64 << 20


def files_hash(paths: Iterable[Path]) -> str:
    """blake2b over the names and bytes of files, in the order of their names."""
    ordered = sorted(paths, key=lambda path: path.name)
    chunks = [(path, start) for path in ordered for start in range(0, max(path.stat().st_size, 1), CHUNK)]
    digest = hashlib.blake2b(digest_size=32)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for (path, start), part in zip(chunks, pool.map(_chunk_hash, chunks), strict=True):
            digest.update(f"{path.name}@{start}:".encode() + part)
    return digest.hexdigest()


def module_hash(network: Any) -> str:
    """blake2b over the parameters and buffers of a module in memory, with their names and dtypes."""
    import torch

    digest = hashlib.blake2b(digest_size=32)
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _chunk_hash(chunk: tuple[Path, int]) -> bytes:
    path, start = chunk
    with path.open("rb") as file:
        file.seek(start)
        return hashlib.blake2b(file.read(CHUNK), digest_size=32).digest()
