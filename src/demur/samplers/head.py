"""Logits of a few positions at a time, in memory that is taken once.

In: what a model's output embeddings read. Out: logits, and groups of their rows. A vocabulary of 150,000 makes 0.6 MB
of every position. On a CPU, buffers of many sizes that come and go leave holes between them, and a process grows to
several times what it holds; one buffer that stays does not.
"""

from __future__ import annotations

from typing import Any

import torch

LOGITS_AT_ONCE = 1 << 23
"""Most logits that are held at a time on a CPU, in float32: 32 MB. With fewer rows a product is slower a row."""
LOGITS_OF_A_PIECE = 1 << 19
"""Most logits that one operation copies on a CPU: 2 MB."""


class Head:
    """A model's output embeddings; `logits` of one call are valid until the next."""

    def __init__(self, embeddings: Any) -> None:
        self.embeddings = embeddings
        self._room = torch.empty(0)

    def logits(self, read: torch.Tensor) -> torch.Tensor:
        """Logits float32 ``[n, vocabulary]`` of what the head reads, ``[n, width]``."""
        head = self.embeddings
        plain = type(head) is torch.nn.Linear and head.bias is None and not head._forward_hooks
        if not plain or not read.dtype == head.weight.dtype == torch.float32 or read.device.type != "cpu":
            found: torch.Tensor = head(read).float()
            return found
        if len(self._room) < len(read):
            self._room = torch.empty(len(read), len(head.weight))
        return torch.mm(read, head.weight.t(), out=self._room[: len(read)])


def pieces(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Groups of rows of ``[n, vocabulary]`` that may be copied: all at once where memory is not a CPU's."""
    if logits.device.type != "cpu":
        return (logits,)
    groups: tuple[torch.Tensor, ...] = torch.split(logits, max(1, LOGITS_OF_A_PIECE // logits.shape[-1]))
    return groups


def positions_at_once(vocabulary: int, device: torch.device) -> int:
    """How many positions have their logits at a time: `LOGITS_AT_ONCE` on a CPU.

    Elsewhere four times as many: the head is read anew for each group, which costs a GPU more than the memory.
    """
    return max(1, (LOGITS_AT_ONCE if device.type == "cpu" else 4 * LOGITS_AT_ONCE) // vocabulary)
