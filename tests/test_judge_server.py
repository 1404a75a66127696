"""A judge's server that misbehaves: every answer or error comes in time and in one line, and no key gets out."""

import contextlib
import gzip
import json
import logging
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import pytest

from demur import InputError
from demur.judges import HTTPAsker
from demur.judges.exchange import MOST_BYTES, _failure
from demur.judges.http_asker import seconds_of

KEY = "sk-0123456789abcdef"
GOOD = json.dumps({"choices": [{"message": {"content": "harmful"}}]}).encode()

Behaviour = Callable[[socket.socket], None]


class BadServer:
    """Takes connections on a free port of this machine; the n-th request gets the n-th behaviour, then the last."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours, self.requests = list(behaviours), list[bytes]()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listening.getsockname()[1]}/v1"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._answer, args=(self._listening.accept()[0],), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request or len(request.partition(b"\r\n\r\n")[2]) < _length(request):
                request += client.recv(65536)
            self.requests.append(request)
            self.behaviours[min(len(self.requests), len(self.behaviours)) - 1](client)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


def _length(request: bytes) -> int:
    head = request.partition(b"\r\n\r\n")[0].lower()
    return int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])


@pytest.fixture
def serve() -> Iterator[Callable[..., BadServer]]:
    with contextlib.ExitStack() as stack:

        def start(*behaviours: Behaviour) -> BadServer:
            server = BadServer(*behaviours)
            stack.callback(server.close)
            return server

        yield start


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)


def reply(body: bytes = GOOD, status: str = "200 OK", *headers: str) -> Behaviour:
    lines = "".join(f"{one}\r\n" for one in (f"Content-Length: {len(body)}", "Connection: close", *headers))
    return lambda client: client.sendall(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode("latin-1") + body)


def raw(content: bytes) -> Behaviour:
    return lambda client: client.sendall(content)


def endless(start: bytes, piece: bytes, pause: float = 0.0) -> Behaviour:
    def send(client: socket.socket) -> None:
        client.sendall(start)
        while True:
            client.sendall(piece)
            time.sleep(pause)

    return send


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")


def ask(server: BadServer, **options: Any) -> list[str]:
    given = {"api_key_env": "TEST_KEY", "pause": 0.01, "retries": 1, "timeout": 2.0, **options}
    return HTTPAsker(server.address, "m", **given)(["q"])


def refusal(server: BadServer, **options: Any) -> str:
    """The one line of the error, which must come within the limit of time and hold no key, nor must its frames."""
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        ask(server, **options)
    assert time.monotonic() - started < 2.5
    frames = "".join(traceback.TracebackException.from_exception(caught.value, capture_locals=True).format())
    message = str(caught.value)
    assert "\n" not in message
    assert message.isprintable()
    assert KEY not in frames.replace("KEY = 'sk-0123456789abcdef'", "")
    return message


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FLOOD = b"x" * 65536


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        pytest.param(endless(HEAD + b"Content-Length: 99999\r\n\r\n", b" ", 0.05), "no whole answer", id="drip body"),
        pytest.param(endless(HEAD, b"x", 0.05), "no whole answer", id="drip headers"),
        pytest.param(endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05), "no whole answer", id="endless 100"),
        pytest.param(lambda client: time.sleep(3), "no whole answer", id="silent"),
        pytest.param(endless(HEAD + b"\r\n", FLOOD), "more than 4 MiB", id="flood"),
        pytest.param(endless(CHUNKED, b"10000\r\n" + FLOOD + b"\r\n"), "more than 4 MiB", id="chunked flood"),
        pytest.param(endless(HEAD + b"X: ", FLOOD), "does not speak HTTP", id="huge header"),
        pytest.param(endless(CHUNKED + b"1;", FLOOD), "does not speak HTTP", id="huge chunk extension"),
        pytest.param(raw(HEAD + b"Content-Length: 500\r\n\r\n" + GOOD), "breaks off", id="too short"),
        pytest.param(raw(HEAD + b"Content-Length: -1\r\n\r\n" + GOOD), "does not speak HTTP", id="negative length"),
        pytest.param(raw(CHUNKED + b"zz\r\n"), "does not speak HTTP", id="no chunk size"),
        pytest.param(raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "does not speak HTTP", id="another protocol"),
        pytest.param(raw(b""), "breaks off", id="closes at once"),
        pytest.param(reset, "breaks off", id="reset"),
        pytest.param(reply(b"[" * 200_000), "not as an OpenAI-compatible", id="deep JSON"),
        pytest.param(reply(b'{"choices": [' + b'{"a":' * 200_000), "not as an OpenAI-compatible", id="deep objects"),
        pytest.param(reply(b'{"choices": [' + b"9" * 9999), "not as an OpenAI-compatible", id="long number"),
        pytest.param(reply(GOOD.replace(b"harmful", b"\xe9\xff")), "not as an OpenAI-compatible", id="latin-1"),
        pytest.param(reply(b""), "not as an OpenAI-compatible", id="empty"),
        pytest.param(reply(b'{"choices": []}'), "not as an OpenAI-compatible", id="no choices"),
        pytest.param(reply(b'{"choices": [{"message": "x"}]}'), "not as an OpenAI-compatible", id="no message"),
        pytest.param(reply(GOOD.replace(b'"harmful"', b"7")), "not as an OpenAI-compatible", id="number"),
        pytest.param(reply(GOOD.replace(b'"harmful"', b"null")), "not as an OpenAI-compatible", id="null"),
        pytest.param(
            reply(gzip.compress(b"0" * 10**7), "200 OK", "Content-Encoding: gzip"), "compressed", id="gzip bomb"
        ),
        pytest.param(reply(GOOD, "404 \x1b[31mgone"), "status 404; check", id="escape in the reason"),
        pytest.param(reply(KEY.encode(), f"401 {KEY}"), "status 401; check", id="key sent back"),
    ],
)
def test_whatever_a_server_sends_ends_in_time_and_in_one_line(
    serve: Callable[..., BadServer], behaviour: Behaviour, message: str
) -> None:
    assert message in refusal(serve(behaviour), timeout=0.8)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(serve: Callable[..., BadServer], status: int) -> None:
    elsewhere = serve(reply())
    server = serve(reply(b"", f"{status} Moved", f"Location: {elsewhere.address}/chat/completions"))
    assert f"status {status}" in refusal(server)
    assert (len(server.requests), elsewhere.requests) == (1, [])


def test_more_than_the_longest_reply_is_not_read(serve: Callable[..., BadServer]) -> None:
    sent = 0

    def flood(client: socket.socket) -> None:
        nonlocal sent
        client.sendall(HEAD + b"\r\n")
        while True:
            sent += client.send(FLOOD)

    assert "more than" in refusal(serve(flood))
    time.sleep(0.05)
    assert MOST_BYTES < sent < 5 * MOST_BYTES  # what the buffers of the system take comes on top


def test_a_server_says_how_long_to_wait(serve: Callable[..., BadServer]) -> None:
    server = serve(reply(b"", "429 Too Many", "Retry-After: 0.3"), reply())
    started = time.monotonic()
    assert ask(server) == ["harmful"]
    assert 0.3 <= time.monotonic() - started < 2
    assert len(server.requests) == 2


def test_a_wait_beyond_the_limit_of_time_is_an_error_at_once(serve: Callable[..., BadServer]) -> None:
    later = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    for asked in ("3600", later, "1e300"):
        server = serve(reply(b"", "503 Busy", f"Retry-After: {asked}"))
        assert "status 503 and is to be asked again in" in refusal(server)
        assert len(server.requests) == 1


def test_retry_after_is_read_as_seconds_or_as_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    assert 95 < (seconds_of(soon) or 0) <= 100
    assert seconds_of("Thu, 01 Jan 1970 00:00:00 -0000") == 0
    assert seconds_of("12") == 12
    for wrong in ("", "-1", "nan", "inf", "soon", "9" * 400, "Thu, 99 Jan 1970 00:00:00 GMT"):
        assert seconds_of(wrong) is None


def test_attempts_are_counted(serve: Callable[..., BadServer]) -> None:
    server = serve(reply(b"", "503 Busy"))
    assert "status 503, 3 times" in refusal(server, retries=2)
    assert len(server.requests) == 3
    assert "breaks off, 1 times" in refusal(serve(raw(b"")), retries=0).replace(" or does not speak HTTP", "")


def test_the_newer_name_of_the_limit_is_taken_where_the_older_is_refused(serve: Callable[..., BadServer]) -> None:
    server = serve(reply(b"use 'max_completion_tokens' instead", "400 Bad Request"), reply())
    assert ask(server, retries=0) == ["harmful"]
    bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in server.requests]
    assert [one.get("max_tokens") for one in bodies] == [8, None]
    assert bodies[1]["max_completion_tokens"] == 8
    assert "status 400" in refusal(serve(reply(b"max_completion_tokens", "400 Bad Request")))


@pytest.mark.parametrize("why", [{"message": {"refusal": "no"}}, {"finish_reason": "length"}])
def test_no_text_is_an_answer_where_the_server_says_why(serve: Callable[..., BadServer], why: dict[str, Any]) -> None:
    body = json.dumps({"choices": [{"message": {"content": None}, **why}]}).encode()
    assert ask(serve(reply(body))) == [""]


def test_a_key_is_sent_without_white_space_around_it(
    serve: Callable[..., BadServer], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TEST_KEY", f" {KEY}\r\n")
    caplog.set_level(logging.DEBUG)
    server = serve(reply())
    assert ask(server) == ["harmful"]
    assert f"authorization: bearer {KEY}\r\n".encode() in server.requests[0].lower()
    assert KEY not in caplog.text


@pytest.mark.parametrize("inside", ["\n", "\r\nX: y", "\x1b[31m", "é", "€", " ", "\udcff", "\x7f"])
def test_a_key_that_no_header_can_hold_is_refused_unseen(monkeypatch: pytest.MonkeyPatch, inside: str) -> None:
    monkeypatch.setenv("TEST_KEY", f"secret{inside}part")
    with pytest.raises(InputError, match="TEST_KEY holds white space, control or non-ASCII") as caught:
        HTTPAsker("https://judge.example/v1", "m", "TEST_KEY")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["sk-live-secret", "gsk_secret", "", "a=secret", "secret\0"])
def test_a_key_given_for_its_variable_is_not_shown(name: str) -> None:
    with pytest.raises(InputError, match="is not set") as caught:
        HTTPAsker("https://judge.example/v1", "m", name)
    assert "secret" not in str(caught.value)


def test_a_key_that_goes_away_is_missed_when_it_is_sent(
    serve: Callable[..., BadServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(reply())
    asker = HTTPAsker(server.address, "m", "TEST_KEY")
    monkeypatch.delenv("TEST_KEY")
    with pytest.raises(InputError, match="TEST_KEY is not set"):
        asker(["q"])
    assert server.requests == []


@pytest.mark.parametrize(
    "address",
    [
        "https://user:secret@host/v1",
        "https://secret@host/v1",
        "https://user%3Asecret%40host/v1",
        "https://host/v1?api_key=secret",
        "https://host/v1#secret",
        "https://host/v1;key=secret",
        "https://host/v1%3Fapi_key%3Dsecret",
        "secret@host",
        "https://host/v1/\x1b[31msecret@",
        "https://host/ü?secret",
        "https://host/(secret)",
        "https://host:secret/v1",
        "https://[secret/v1",
    ],
)
def test_an_address_that_may_hold_a_secret_is_refused_unseen(address: str) -> None:
    with pytest.raises(InputError, match="judge's address") as caught:
        HTTPAsker(address, "m")
    assert "secret" not in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("address", ["http://judge.example/v1", "http://10.0.0.1/v1", "http://0.0.0.0:1/v1"])
def test_a_key_does_not_travel_unencrypted(address: str) -> None:
    HTTPAsker(address, "m")
    with pytest.raises(InputError, match="a key would travel unencrypted; give an https"):
        HTTPAsker(address, "m", "TEST_KEY")
    HTTPAsker(address.replace("http:", "https:"), "m", "TEST_KEY")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "127.255.1.9", "[::1]", "localhost"])
def test_no_proxy_stands_between_this_machine_and_itself(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://user:secret@127.0.0.1:9")
    with pytest.raises(InputError, match="connection refused"):
        HTTPAsker(f"http://{host}:9/v1", "m", "TEST_KEY", retries=0)(["q"])


def test_a_proxy_that_cannot_be_used_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for proxy in (
        "socks5://user:secret@127.0.0.1:9",
        "ftp://user:secret@127.0.0.1:9",
        "http://user:secret@127.0.0.1:x",
    ):
        monkeypatch.setenv("https_proxy", proxy)
        with pytest.raises(InputError, match="the proxy or the certificates") as caught:
            HTTPAsker("https://judge.example/v1", "m", "TEST_KEY")(["q"])
        assert "secret" not in str(caught.value)


def test_a_proxy_is_asked_for_a_tunnel_and_sees_no_key(
    serve: Callable[..., BadServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bytes] = []

    def refuse(listening: socket.socket) -> None:
        client = listening.accept()[0]
        seen.append(client.recv(65536))
        client.sendall(b"HTTP/1.1 403 No\r\n\r\n")
        client.close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=refuse, args=(listening,), daemon=True).start()
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listening.getsockname()[1]}")
        with pytest.raises(InputError, match="through the proxy of the environment"):
            HTTPAsker("https://judge.example/v1", "m", "TEST_KEY", retries=0)(["q"])
    assert seen[0].startswith(b"CONNECT judge.example:443 ")
    assert KEY.encode() not in seen[0]


def test_a_server_without_tls_is_named() -> None:
    def answer(listening: socket.socket) -> None:
        with listening.accept()[0] as client:
            client.recv(1)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, args=(listening,), daemon=True).start()
        address = f"https://127.0.0.1:{listening.getsockname()[1]}/v1"
        with pytest.raises(InputError, match="does not speak TLS as expected; check the judge's server"):
            HTTPAsker(address, "m", "TEST_KEY", timeout=2)(["q"])


def test_a_certificate_that_is_not_valid_is_named_once_and_for_all() -> None:
    error = httpx2.ConnectError("SSL")
    error.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.__cause__.verify_message = "self-signed certificate"
    found = _failure(error)
    assert (found.reason, found.lasting) == ("its certificate is not valid (self-signed certificate)", True)


def test_a_name_that_nobody_knows_is_said_in_one_line() -> None:
    with pytest.raises(InputError, match=r"judge\.invalid/v1: cannot be reached \(its name is not known\)"):
        HTTPAsker("http://judge.invalid/v1", "m", retries=0, timeout=2)(["q"])


@pytest.mark.parametrize(
    "wrong",
    [{"timeout": 0}, {"timeout": float("nan")}, {"pause": -1}, {"retries": -1}, {"max_tokens": 0}, {"at_once": 0}],
)
def test_limits_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected"):
        HTTPAsker("http://127.0.0.1:1/v1", "m", **wrong)


def test_answers_keep_their_places_and_questions_are_asked_together(serve: Callable[..., BadServer]) -> None:
    def slow(client: socket.socket) -> None:
        time.sleep(0.2)
        reply()(client)

    server = serve(slow)
    started = time.monotonic()
    assert HTTPAsker(server.address, "m")(list("abcdefgh")) == ["harmful"] * 8
    assert time.monotonic() - started < 1.2
    assert HTTPAsker(server.address, "m")([]) == []


def test_an_asker_works_within_a_running_event_loop(serve: Callable[..., BadServer]) -> None:
    import asyncio

    async def within() -> list[str]:
        return ask(serve(reply()))

    assert asyncio.run(within()) == ["harmful"]
