"""One question and one answer over HTTP, within limits.

In: a checked address and a JSON body. Out: a status and the bytes of the reply, or why there are none. Redirects
are not followed, nothing is decompressed, cookies and netrc are not read. A proxy of the environment is used for other
machines only; a request over https passes it encrypted from end to end.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import httpx2

from demur.errors import InputError
from demur.judges.address import is_loopback, read_key

MOST_BYTES = 4 * 2**20
"""Longest reply that is read."""


@dataclass(frozen=True)
class Reply:
    """What a server sent, or why nothing that can be used came.

    status : of HTTP, None where no whole reply came. reason : what is wrong, None for a reply of success.
    lasting : whether the same request would fail again, where the status does not say it.
    retry_after : the header of that name, empty where the server sent none.
    What the server sent is left out of the representation: it may send the key back.
    """

    status: int | None = None
    body: bytes = field(default=b"", repr=False)
    retry_after: str = field(default="", repr=False)
    reason: str | None = None
    lasting: bool = False


class _Bearer(httpx2.Auth):
    """Reads the key when a request is sent, so that no object holds it longer."""

    def __init__(self, variable: str) -> None:
        self._variable = variable

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        request.headers["Authorization"] = f"Bearer {read_key(self._variable)}"
        yield request


def client_for(address: str, key_variable: str | None) -> httpx2.AsyncClient:
    """A client for one checked address; the caller limits time."""
    try:
        return httpx2.AsyncClient(
            auth=None if key_variable is None else _Bearer(key_variable),
            headers={"Accept-Encoding": "identity"},
            timeout=None,
            trust_env=not is_loopback(address),
            follow_redirects=False,
        )
    except (httpx2.InvalidURL, ImportError, OSError, ValueError):
        # Not shown: the address of a proxy may hold a password.
        reason = "the proxy or the certificates set in the environment cannot be used"
    raise InputError(f"{address}: {reason}; check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and SSL_CERT_FILE")


async def exchange(client: httpx2.AsyncClient, address: str, content: bytes, seconds: float) -> Reply:
    """Post JSON and read the reply, all within `seconds`."""
    headers = {"Content-Type": "application/json"}
    try:
        async with (
            asyncio.timeout(seconds),
            client.stream("POST", address, content=content, headers=headers) as reply,
        ):
            return await _read(reply)
    except InputError:
        raise
    except TimeoutError:
        return Reply(reason="gives no whole answer in time", lasting=True)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
        return _failure(error)


async def _read(reply: httpx2.Response) -> Reply:
    if reply.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        return Reply(reason="answers compressed, though asked not to", lasting=True)
    content = bytearray()
    async for chunk in reply.aiter_raw():
        content += chunk
        if len(content) > MOST_BYTES:
            return Reply(reason=f"answers with more than {MOST_BYTES // 2**20} MiB", lasting=True)
    status = reply.status_code
    reason = None if 200 <= status < 300 else f"answers with status {status}"
    return Reply(status, bytes(content), reply.headers.get("Retry-After", ""), reason)


def _failure(error: BaseException) -> Reply:
    """What went wrong, in words of our own: the error's may hold what the server sent."""
    for one in _causes(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return Reply(reason=f"its certificate is not valid ({one.verify_message})", lasting=True)
        if isinstance(one, ssl.SSLError):
            return Reply(reason="does not speak TLS as expected", lasting=True)
        if isinstance(one, socket.gaierror):
            return Reply(reason="cannot be reached (its name is not known)")
        if isinstance(one, ConnectionRefusedError):
            return Reply(reason="cannot be reached (connection refused)")
    if isinstance(error, httpx2.ProxyError):
        return Reply(reason="cannot be reached through the proxy of the environment")
    if isinstance(error, httpx2.ConnectError):
        return Reply(reason="cannot be reached (no connection)")
    if isinstance(error, httpx2.ProtocolError):
        return Reply(reason="breaks off or does not speak HTTP")
    return Reply(reason="breaks off the connection")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it came from, and the members of groups among them."""
    left, seen = [error], set[int]()
    while left:
        one = left.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        left += [cause for cause in (one.__cause__, one.__context__) if cause is not None]
        left += one.exceptions if isinstance(one, BaseExceptionGroup) else ()
