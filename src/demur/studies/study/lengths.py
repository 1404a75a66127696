"""How long the answers of a recording are.

In: a recording. Out: tokens of each answer up to its end-of-sequence. The recording's own column `tokens` counts
every committed position, and a diffusion model also commits the end-of-sequence tokens that fill its canvas.
"""

from __future__ import annotations

import numpy as np

from demur.recording import Recording
from demur.recording.derived import Deriver, Shard, derive


def answer_lengths(recording: Recording) -> np.ndarray:
    """Committed tokens before the first end-of-sequence, int64 ``[prompts]``."""
    lengths: np.ndarray = derive(recording, [ANSWER_TOKENS])[ANSWER_TOKENS.name]
    return lengths


def _lengths(shard: Shard) -> np.ndarray:
    ended = np.isin(shard.arrays["tokens"], shard.manifest["eos_token_ids"]).cumsum(axis=1) > 0
    lengths: np.ndarray = ((shard.arrays["committed_at"] > 0) & ~ended).sum(axis=1).astype(np.int64)
    return lengths


ANSWER_TOKENS = Deriver("answer_tokens", _lengths, {})
