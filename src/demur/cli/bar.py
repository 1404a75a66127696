"""One line that shows how far the whole job is: a bar in a terminal, elsewhere a line now and then.

In: what `demur.recording.progress` tells. Out: stderr. What was recorded by an earlier run counts as done and not
into the rate, nor does the time between recordings.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

EVERY = 30.0
"""Seconds between two lines where stderr is no terminal."""


class Bar:
    """A `Watcher` for the command line."""

    def __init__(self, every: float = EVERY) -> None:
        self._every = every
        self._name = ""
        self._total = self._done = self._fresh = 0
        self._busy = 0.0
        self._last = self._told = time.monotonic()
        self._shown: Progress | None = None

    def plan(self, prompts: int) -> None:
        self._total += prompts

    def begin(self, name: str, done: int, prompts: int) -> None:
        self._name = name
        self._done += done
        self._last = time.monotonic()
        if done < prompts:
            self._show()

    def advance(self, prompts: int) -> None:
        now = time.monotonic()
        self._busy += now - self._last
        self._last = now
        self._fresh += prompts
        self._done += prompts
        self._show()
        if self._done >= self._total:
            self.close()

    def close(self) -> None:
        """Take the bar off the terminal."""
        if self._shown is not None:
            self._shown.stop()
            self._shown = None

    def line(self) -> str:
        """The set, done of all prompts, the rate and the time that is left."""
        text = f"{self._name}: {self._done} of {self._total} prompts"
        if not self._fresh or self._busy <= 0:
            return text
        rate = self._fresh / self._busy
        pace = f"{rate:.1f} prompts a second" if rate >= 1 else f"{1 / rate:.1f} seconds a prompt"
        return f"{text}, {pace}, {_span((self._total - self._done) / rate)} left"

    def _show(self) -> None:
        if not sys.stderr.isatty():
            if self._last - self._told >= self._every:
                self._told = self._last
                sys.stderr.write(f"{self.line()}\n")
                sys.stderr.flush()
            return
        if self._shown is None:
            self._shown = _progress()
            self._shown.add_task("", total=self._total)
            self._shown.start()
        self._shown.update(self._shown.task_ids[0], completed=self._done, total=self._total, description=self.line())


@contextmanager
def watched(quiet: bool) -> Iterator[None]:
    """Show how far the recordings are that are made here, unless `quiet`."""
    from demur.recording.progress import watched_by

    if quiet:
        yield
        return
    bar = Bar()
    try:
        with watched_by(bar):
            yield
    finally:
        bar.close()


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(
        BarColumn(bar_width=20),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # else news meant for a file would go to the terminal
    )


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
