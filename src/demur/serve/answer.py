"""What a client gets to see of a generation, and when: hold-back, text, stop texts.

In: the updates of one job. Out: pieces of text, and at the end why it ended. No token passes before its verdict, unless
the operator says so; a token that is held back when a guard stops the generation is never shown.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from demur.defenses import Verdict
from demur.models import Model
from demur.serve.job import Job, Reason, Update
from demur.serve.settings import Hold

UNFINISHED = "\ufffd"
"""What a decoder gives for bytes of a character that is not complete yet."""


@dataclass(frozen=True)
class Piece:
    """A further piece of an answer's text; the last one says why it ended."""

    text: str
    reason: Reason | None = None
    tokens: int = 0
    stopped_at: int = 0
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    fault: str = ""
    by_prompt: bool = False


class Answer:
    """One choice of an answer, piece by piece.

    hold : see `Settings`. stops : texts that end the answer and are no part of it. cancel : frees the job's place.
    """

    def __init__(self, model: Model, job: Job, hold: Hold, stops: Sequence[str], cancel: Callable[[Job], None]) -> None:
        self.job, self._hold, self._cancel = job, hold if job.block else "none", cancel
        self._tokens: list[int] = []
        self._text = Decoded(model)
        self._stops = StopTexts(stops)
        self.ended = False

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """The text as it may be shown. A caller that goes away must call `close`."""
        async for update in self.job.news():
            self._tokens += update.tokens
            text = self._text.upto(self._tokens[: self._shown(update)], last=update.reason is not None)
            text = self._stops.passed(text, last=update.reason not in (None, "content_filter"))
            if self._stops.found:
                self.close()
                yield Piece(text, "stop", self._count(update), update.stopped_at, update.verdicts)
                return
            if update.reason is None:
                if text:
                    yield Piece(text)
                continue
            self.ended = True
            said = update.stopped_at, update.verdicts, update.fault, update.by_prompt
            yield Piece(text, update.reason, self._count(update), *said)

    def close(self) -> None:
        """Nobody waits any more: free the place of what is still being made."""
        if not self.ended:
            self.ended = True
            self._cancel(self.job)

    def _shown(self, update: Update) -> int:
        """How many of the tokens a client may see."""
        count = len(self._tokens)
        if update.reason in ("content_filter", "error"):
            return {"none": update.shown, "look": min(update.cleared, update.shown), "all": 0}[self._hold]
        if update.reason is not None:
            return count
        return {"none": count, "look": min(update.cleared, count), "all": 0}[self._hold]

    def _count(self, update: Update) -> int:
        return update.shown if update.reason is not None else len(self._tokens)


class Decoded:
    """Text of tokens that grow, a piece at a time; all pieces together are the text of all tokens.

    Each piece is decoded with a few tokens before it, as a tokenizer may treat the first of a text otherwise, and waits
    until its characters are complete.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._opening = model.decode([])
        self._start = self._read = 0
        self._begun = False

    def upto(self, tokens: Sequence[int], *, last: bool) -> str:
        """What these tokens add to the text so far. last : no token follows."""
        if len(tokens) <= self._read and not last:
            return ""
        before = self._plain(tokens[self._start : self._read])
        now = self._plain(tokens[self._start :])
        if now.endswith(UNFINISHED) and not last:
            return ""
        self._start, self._read = self._read, len(tokens)
        piece = now[len(before) :]
        if not self._begun and (piece or last):
            self._begun, piece = True, self._opening + piece
        return piece

    def _plain(self, tokens: Sequence[int]) -> str:
        return self._model.decode(tokens).removeprefix(self._opening)


class StopTexts:
    """Cuts a text at the first of some stop texts, wherever pieces begin and end.

    found : whether one has come; nothing of it or behind it passes.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found = False

    def passed(self, piece: str, *, last: bool) -> str:
        """The part of the text that can pass now; what may be the beginning of a stop text waits."""
        text = self._held + piece
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        waits = 0 if last else max((self._overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - waits :]
        return text[: len(text) - waits]

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """How many characters at the end of the text are the beginning of the stop text."""
        sizes = range(min(len(text), len(stop) - 1), 0, -1)
        return next((size for size in sizes if text.endswith(stop[:size])), 0)
