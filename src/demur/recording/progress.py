"""How far a job is: told by recordings, listened to by whoever shows it.

In: batches that are done. Out: calls of the `Watcher` that `watched_by` set, if any. Showing is left to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Watcher(Protocol):
    """Shows how far a job of several recordings is."""

    def plan(self, prompts: int) -> None:
        """So many prompts more are to come, of recordings whose `begin` follows."""

    def begin(self, name: str, done: int, prompts: int) -> None:
        """The recording `name` of so many prompts begins, of which `done` were there already."""

    def advance(self, prompts: int) -> None:
        """So many prompts more of the recording are done."""


_WATCHER: ContextVar[Watcher | None] = ContextVar("watcher", default=None)
_PLANNED: ContextVar[bool] = ContextVar("planned", default=False)


@contextmanager
def watched_by(one: Watcher | None) -> Iterator[None]:
    """Tell `one` of the recordings that are made here; None for nobody."""
    token = _WATCHER.set(one)
    try:
        yield
    finally:
        _WATCHER.reset(token)


@contextmanager
def planned(prompts: int) -> Iterator[None]:
    """Announce a job of so many prompts; one inside another is a part of it and announces nothing."""
    one = _WATCHER.get()
    if one is not None and not _PLANNED.get():
        one.plan(prompts)
    token = _PLANNED.set(True)
    try:
        yield
    finally:
        _PLANNED.reset(token)


def begin(name: str, done: int, prompts: int) -> Watcher | None:
    """Tell of a recording that begins; one outside of any plan is a job by itself. Returns who is told."""
    one = _WATCHER.get()
    if one is not None:
        if not _PLANNED.get():
            one.plan(prompts)
        one.begin(name, done, prompts)
    return one
