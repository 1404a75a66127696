"""Questions to a chat model behind an OpenAI-compatible address.

In: questions. Out: the model's answers, greedy. An address that cannot be reached, refuses, or speaks another
protocol is an `InputError`; what the answers mean is left to the judge, the limits of one request to `exchange`.
"""

from __future__ import annotations

import asyncio
import json
import math
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from demur.errors import InputError
from demur.judges.address import checked_address, read_key, require_private

if TYPE_CHECKING:
    from demur.judges.exchange import Reply

PASSING = (408, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""

_NO_TEXT = ("length", "content_filter")
"""Why a model may end without a text, as `finish_reason`."""


@dataclass(frozen=True)
class HTTPAsker:
    """Asks ``ADDRESS/chat/completions``, up to `at_once` questions at a time.

    address : such as ``http://127.0.0.1:8000/v1``. model : its name there.
    api_key_env : environment variable that holds the key, if one is needed; the key is kept nowhere else, and is sent
        over https, or to this machine.
    timeout : seconds for one answer in all: connecting, reading, further attempts and the pauses between them.
    retries : further attempts at a request that failed in passing, after as long as the server's Retry-After says,
        else after `pause` seconds, doubled each time.
    max_tokens : longest answer; more than a word is needed only for models that think aloud. A server that refuses
        this name is given it as ``max_completion_tokens``.
    """

    address: str
    model: str
    api_key_env: str | None = None
    timeout: float = 60.0
    retries: int = 3
    max_tokens: int = 8
    at_once: int = 8
    pause: float = 0.5

    def __post_init__(self) -> None:
        checked_address(self.address)
        if self.api_key_env is not None:
            read_key(self.api_key_env)
            require_private(checked_address(self.address))
        if not 0 < self.timeout < math.inf or not 0 <= self.pause < math.inf:
            raise InputError(f"timeout is {self.timeout} and pause {self.pause}; expected seconds above 0, such as 60")
        for name, least in (("retries", 0), ("max_tokens", 1), ("at_once", 1)):
            if not getattr(self, name) >= least:
                raise InputError(f"{name} is {getattr(self, name)}; expected at least {least}")

    @property
    def name(self) -> str:
        return self.model

    @property
    def identity(self) -> str:
        return f"{self.model} at {self.address.rstrip('/')}, temperature 0, {self.max_tokens} tokens"

    def __call__(self, questions: Sequence[str]) -> list[str]:
        """An answer to each question; the first failure ends all."""
        found: queue.SimpleQueue[list[str] | BaseException] = queue.SimpleQueue()
        # A thread of its own: the caller may be within an event loop, and a name server that does not answer holds up
        # the end of the loop, which nobody must wait for.
        threading.Thread(target=_run, args=(_Conversation(self), questions, found), daemon=True).start()
        answers = found.get()
        if isinstance(answers, BaseException):
            raise answers
        return answers


def _run(
    conversation: _Conversation, questions: Sequence[str], found: queue.SimpleQueue[list[str] | BaseException]
) -> None:
    async def all_of_them() -> None:
        try:
            found.put(await conversation.answers(questions))
        except BaseException as error:
            found.put(error)

    asyncio.run(all_of_them())


class _Conversation:
    """The questions of one call."""

    def __init__(self, asker: HTTPAsker) -> None:
        self.asker = asker
        self.address = checked_address(asker.address)
        self.limit_name = "max_tokens"

    async def answers(self, questions: Sequence[str]) -> list[str]:
        from demur.judges.exchange import client_for

        self.turns = asyncio.Semaphore(self.asker.at_once)
        error: BaseException | None = None
        async with client_for(self.address, self.asker.api_key_env) as self.client:
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(self._answer(question)) for question in questions]
            except BaseExceptionGroup as failed:
                error = failed.exceptions[0]
        if error is not None:
            raise error
        return [task.result() for task in tasks]

    async def _answer(self, question: str) -> str:
        async with self.turns:
            body = await self._reply(question, time.monotonic() + self.asker.timeout)
        answer = _content(body)
        if answer is None:
            raise InputError(f"{self.address}: answers, but not as an OpenAI-compatible server; check it")
        return answer

    async def _reply(self, question: str, deadline: float) -> bytes:
        """The body of a reply of success, after as many attempts as are allowed."""
        for attempt in range(self.asker.retries + 1):
            found = await self._exchange(question, deadline)
            if found.reason is None:
                return found.body
            self._require_passing(found)
            if attempt < self.asker.retries:
                await self._pause(found, attempt, deadline)
        raise InputError(
            f"{self.address}: {found.reason}, {self.asker.retries + 1} times; start the judge's server, or give "
            "another address"
        )

    async def _exchange(self, question: str, deadline: float) -> Reply:
        from demur.judges.exchange import exchange

        while True:
            limit = self.limit_name
            body = {"model": self.asker.model, "messages": [{"role": "user", "content": question}], "temperature": 0}
            content = json.dumps({**body, limit: self.asker.max_tokens}).encode()
            left = deadline - time.monotonic()
            found = await exchange(self.client, f"{self.address}/chat/completions", content, left)
            if limit != "max_tokens" or found.status != 400 or b"max_completion_tokens" not in found.body:
                return found
            self.limit_name = "max_completion_tokens"

    def _require_passing(self, found: Reply) -> None:
        """Raise where the same request would fail again."""
        if found.status is None and found.lasting:
            raise InputError(f"{self.address}: {found.reason}; check the judge's server")
        if found.status is not None and found.status not in PASSING:
            raise InputError(f"{self.address}: {found.reason}; check address, model {self.asker.model!r} and key")

    async def _pause(self, found: Reply, attempt: int, deadline: float) -> None:
        asked = seconds_of(found.retry_after)
        wait = self.asker.pause * 2**attempt if asked is None else asked
        if wait >= deadline - time.monotonic():
            raise InputError(
                f"{self.address}: {found.reason} and is to be asked again in {wait:,.0f} s, beyond the "
                f"{self.asker.timeout:g} s for one answer; try later, or give a longer timeout"
            )
        await asyncio.sleep(wait)


def seconds_of(retry_after: str) -> float | None:
    """Seconds that a Retry-After header asks to wait, given as seconds or as a date; None where it says neither."""
    try:
        seconds = float(retry_after)
        return seconds if 0 <= seconds < math.inf else None
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(retry_after)
        return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _content(body: bytes) -> str | None:
    """The text in a chat completion, empty where the model gave none; None where it is no chat completion."""
    try:
        choice: Any = json.loads(body)["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
        ended = choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if isinstance(content, str):
        return content
    # No text is an answer too where the server says why.
    return "" if content is None and (isinstance(refusal, str) or ended in _NO_TEXT) else None
