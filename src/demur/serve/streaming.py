"""Server-sent events, and answers that are given up when the client goes.

In: the chunks of an answer. Out: bytes on the wire. Whether the client is still there is asked all the time, not only
when there is something to send: an answer that is held back sends nothing for long.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from demur.serve.faults import Fault

Found = TypeVar("Found")
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


async def while_connected(request: Request, work: Awaitable[Found], seconds: float) -> Found:
    """What `work` gives; it is cancelled when the client goes (`ClientDisconnect`) or the time is over (`Fault`)."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnect
        raise Fault(504, f"the answer took more than {seconds:g} seconds", code="timeout")
    finally:
        for one in (task, gone):
            one.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Events(Response):
    """A stream of chunks, ``data: [DONE]`` behind them. A fault on the way is the last chunk.

    first, chunks : the first one, and those behind it, closed whatever happens. seconds : that all of it may take.
    """

    media_type = "text/event-stream"

    def __init__(self, first: dict[str, Any], chunks: AsyncGenerator[dict[str, Any], None], seconds: float) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._first, self._chunks, self._seconds = first, chunks, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, gone}, timeout=self._seconds + 5, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (sending, gone):
                one.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await sending
            await self._chunks.aclose()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async with asyncio.timeout(self._seconds):
                await self._one(send, json.dumps(self._first, separators=(",", ":")))
                async for chunk in self._chunks:
                    await self._one(send, json.dumps(chunk, separators=(",", ":")))
        except Fault as fault:
            await self._one(send, json.dumps(fault.body))
        except TimeoutError:
            late = Fault(504, f"the answer took more than {self._seconds:g} seconds", code="timeout")
            await self._one(send, json.dumps(late.body))
        await self._one(send, "[DONE]")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    @staticmethod
    async def _one(send: Send, data: str) -> None:
        await send({"type": "http.response.body", "body": f"data: {data}\n\n".encode(), "more_body": True})
