"""What every request passes first: the key, and limits of size and time on what is sent either way.

In: an ASGI application. Out: the same behind a gate. A client that sends its request too slowly, or takes in the answer
too slowly, loses its connection and frees its place.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from demur.serve.faults import Fault
from demur.serve.settings import Settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]
OPEN = ("/health", "/ready")
"""Paths that need no key: an orchestrator asks them."""


class Gate:
    """Lets requests through that carry one of the keys and keep the limits. keys : none means that none is needed."""

    def __init__(self, app: App, settings: Settings, keys: Iterable[str] = ()) -> None:
        self._app, self._settings = app, settings
        self._keys = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def timed(message: Message) -> None:
            await asyncio.wait_for(send(message), self._settings.send_timeout)

        try:
            self._require_key(scope)
            first = await asyncio.wait_for(self._body(scope, receive), self._settings.body_timeout)
        except Fault as fault:
            return await fault.response()(scope, receive, timed)
        except TimeoutError:
            slow = Fault(408, "the request took too long to arrive", headers={"connection": "close"})
            return await slow.response()(scope, receive, timed)
        if first is None:
            return None
        waiting: list[Message] = [first]

        async def replayed() -> Message:
            return waiting.pop() if waiting else await receive()

        return await self._app(scope, replayed, timed)

    def _require_key(self, scope: MutableMapping[str, Any]) -> None:
        if not self._keys or scope["path"] in OPEN:
            return
        headers = dict(scope["headers"])
        kind, _, given = headers.get(b"authorization", b"").partition(b" ")
        found = _digest(given.strip() if kind.lower() == b"bearer" else b"")
        # Every key is compared, each in constant time, so that the time tells nothing of them.
        if not sum(hmac.compare_digest(found, key) for key in self._keys):
            raise Fault(401, "the API key is missing or wrong", code="invalid_api_key")

    async def _body(self, scope: MutableMapping[str, Any], receive: Receive) -> Message | None:
        """The whole body as one message; None where the client has gone."""
        limit = self._settings.max_body
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length[:20]) > limit:
            raise self._too_large()
        parts, size = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            size += len(message.get("body", b""))
            if size > limit:
                raise self._too_large()
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return {"type": "http.request", "body": b"".join(parts), "more_body": False}

    def _too_large(self) -> Fault:
        return Fault(413, f"the body is larger than {self._settings.max_body} bytes", headers={"connection": "close"})


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
