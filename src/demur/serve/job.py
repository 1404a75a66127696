"""One generation that a server has to make: what is asked of an engine, and what the engine reports.

In: token ids and how to sample. Out: updates that arrive in the event loop of the server, whichever thread the engine
runs in.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

from demur.defenses import Verdict

Reason = Literal["stop", "length", "content_filter", "error", "cancelled"]


@dataclass(frozen=True)
class Update:
    """News of a generation.

    tokens : those that came since the last update. cleared : how many of all tokens have a verdict now. reason : why it
    ended, None while it goes on. shown : at the end, how many tokens there were up to the step that stopped it, or in
    all. stopped_at : the step, 0 where no guard stops it. verdicts : by guard, at the end. fault : of reason "error".
    """

    tokens: tuple[int, ...]
    cleared: int
    reason: Reason | None = None
    shown: int = 0
    stopped_at: int = 0
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    fault: str = ""
    by_prompt: bool = False


@dataclass(eq=False)
class Job:
    """A generation to make.

    id : its own, among all of a server. ids : token ids of the prompt. max_tokens : most tokens of the answer.
    temperature : 0 decodes greedily. top_p : share of probability that is drawn from. seed, sample : of the draws, see
    `samplers.step.row_seed`. block : whether a guard's stop ends it. block_prompt : whether a stop by the prompt's own
    state does, before anything is generated. follow : whether tokens are reported as they come, and not only the end.
    held : whether only those that have a verdict are wanted then. prompt_scores : what guards have said of the prompt
    alone.
    """

    id: str
    ids: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int
    sample: int
    block: bool
    block_prompt: bool
    follow: bool
    held: bool = False
    updates: asyncio.Queue[Update] = field(default_factory=asyncio.Queue)
    created: float = field(default_factory=time.perf_counter)
    first_token: float | None = None
    prompt_scores: dict[str, float] = field(default_factory=dict)
    cancelled: bool = False
    done: bool = False

    async def news(self) -> AsyncIterator[Update]:
        """Every update, the last one with a reason."""
        while True:
            update = await self.updates.get()
            yield update
            if update.reason is not None:
                return
