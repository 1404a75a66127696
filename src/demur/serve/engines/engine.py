"""What a server needs of an engine, and the mailbox through which engines report.

In: jobs. Out: updates in the event loop. How generations are made is left to the engines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from demur.serve.guards import Guards
from demur.serve.job import Job, Update


class Engine(Protocol):
    """Makes generations in a thread of its own.

    guards : that its generations pass. longest : most tokens of prompt and answer together. adjustable : whether it
    draws by top_p.
    """

    guards: Guards
    longest: int
    adjustable: bool

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin to work, reporting into this loop."""

    def submit(self, job: Job) -> None:
        """Make one more generation; raises `EngineDown` where none can be made any more."""

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more: free its place."""

    def stop(self) -> None:
        """End the thread; generations under way are given up."""

    @property
    def healthy(self) -> bool:
        """Whether it still works."""

    @property
    def running(self) -> int:
        """Generations under way."""

    @property
    def waiting(self) -> int:
        """Generations not begun."""


class EngineDown(RuntimeError):
    """The engine's thread has ended."""


class Mailbox:
    """Carries updates from an engine's thread into the event loop, all of one pass together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def post(self, news: Sequence[tuple[Job, Update]]) -> None:
        if news and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, news)

    @staticmethod
    def _deliver(news: Sequence[tuple[Job, Update]]) -> None:
        for job, update in news:
            job.updates.put_nowait(update)
