"""How long the answers of a recording are.

In: a recording. Out: tokens of each answer up to its end-of-sequence. The recording's own column `tokens` counts
every committed position, and a diffusion model also commits the end-of-sequence tokens that fill its canvas.
"""

from __future__ import annotations

import numpy as np

from demur.recording import Recording
from demur.recording import folder as files


def answer_lengths(recording: Recording) -> np.ndarray:
    """Committed tokens before the first end-of-sequence, int64 ``[prompts]``."""
    lengths = np.zeros(len(recording), dtype=np.int64)
    for number in files.shard_numbers(recording.path):
        arrays = files.read_shard_arrays(recording.path, number)
        ended = np.isin(arrays["tokens"], recording.manifest["eos_token_ids"]).cumsum(axis=1) > 0
        lengths[arrays["rows"]] = ((arrays["committed_at"] > 0) & ~ended).sum(axis=1)
    return lengths
