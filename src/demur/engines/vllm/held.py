"""Tokens of one answer that wait for their verdict.

In: the engine's outputs, token by token. Out: the same outputs with the tokens that may be seen. What has been said of
them comes from the guards.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from demur.engines.vllm.messages import Said


class Held:
    """hold : "look" lets a token pass once a look at it or behind it has passed, "all" nothing before the end, "none"
    everything at once."""

    def __init__(self, hold: str) -> None:
        self.hold = hold
        self._tokens: deque[int] = deque()
        self._logprobs: deque[Any] = deque()
        self._shown = 0

    def release(self, output: Any, said: Said) -> None:
        """Replace an output's tokens by those that may be seen now. output : vLLM's `EngineCoreOutput`."""
        new = list(output.new_token_ids)
        if said.stopped:
            new = new[:-1]  # the end that the guard put in the token's place
        self._tokens += new
        if output.new_logprobs is not None:
            self._logprobs += [_row(output.new_logprobs, place) for place in range(len(new))]
        count = self._count(said, ended=output.finish_reason is not None)
        output.new_token_ids = [self._tokens.popleft() for _ in range(count)]
        if output.new_logprobs is not None or self._logprobs:
            rows = [self._logprobs.popleft() for _ in range(min(count, len(self._logprobs)))]
            output.new_logprobs = _joined(rows) if rows else None
        self._shown += count

    def _count(self, said: Said, *, ended: bool) -> int:
        """How many of the waiting tokens may be seen."""
        if self.hold == "none":
            return len(self._tokens)
        if said.stopped:
            return 0  # the look that stopped it is the next one that the waiting tokens had to pass
        if ended or (self.hold == "look" and said.cleared is None):
            return len(self._tokens)
        return 0 if self.hold == "all" else max(0, min(len(self._tokens), (said.cleared or 0) - self._shown))


def _row(logprobs: Any, place: int) -> Any:
    """The log-probabilities of one token, as vLLM's `LogprobsLists` of one row."""
    return type(logprobs)(
        *(part[place : place + 1] if isinstance(part, np.ndarray | list) else part for part in logprobs)
    )


def _joined(rows: list[Any]) -> Any:
    parts = zip(*rows, strict=True)
    return type(rows[0])(*(np.concatenate(part) if isinstance(part[0], np.ndarray) else part[0] for part in parts))
