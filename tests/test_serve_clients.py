"""Clients that misbehave, a server that is killed, and requests that nobody would write."""

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from transformers.generation.continuous_batching.requests import RequestState
from typer.testing import CliRunner

from demur.cli import app as commands
from demur.serve.chat import Call
from demur.serve.job import Job
from demur.serve.verdict_log import read_log
from serving import PATIENCE, app_of, chat, running, served

CANCELLED = int(os.environ.get("DEMUR_SERVE_CANCELLED", "60"))
"""1,000 in `make test-serve`."""
CASES = int(os.environ.get("DEMUR_SERVE_CASES", "30"))
"""2,000 in `make test-serve`."""


@pytest.fixture(scope="module")
def live() -> Iterator[tuple[Any, str]]:
    app = app_of(served("demur/tiny-ar"), max_body=20_000, body_timeout=1.0, slots=8)
    with running(app) as address:
        yield app, address


def idle(app: Any) -> bool:
    """Whether every place of the engine is free, within a minute."""
    engine = app.state.chat.engine
    deadline = time.monotonic() + 60
    while engine.running + engine.waiting and time.monotonic() < deadline:
        time.sleep(0.05)
    return engine.running + engine.waiting == 0


def left_in_memory() -> int:
    """How many requests, of all that ever came, are still held by anything."""
    gc.collect()
    kinds = [type(one) for one in gc.get_objects()]
    return max(kinds.count(kind) for kind in (Job, Call, RequestState))


def opened(address: str, data: bytes) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    found = socket.create_connection((host, int(port)), timeout=20)
    found.sendall(data)
    return found


def request(body: bytes, length: int | None = None) -> bytes:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


def test_clients_that_go_free_their_places(live: tuple[Any, str]) -> None:
    app, address = live
    prompts = served("demur/tiny-ar").prompts
    for number in range(CANCELLED):
        body = json.dumps(chat(prompts[number % len(prompts)], stream=number % 2 == 0)).encode()
        connection = opened(address, request(body))
        if number % 3 == 1:
            time.sleep(0.02)
        if number % 3 == 2:
            connection.shutdown(socket.SHUT_WR)
        connection.close()
    assert idle(app)
    answer = httpx2.post(f"{address}/v1/chat/completions", json=chat(prompts[-1]), timeout=PATIENCE)
    assert answer.status_code == 200 and idle(app)
    taps = app.state.chat.engine.guards.taps
    assert all(len(tap.requests) == 0 for tap in taps) and all(len(tap._steps) <= 64 for tap in taps)
    assert left_in_memory() <= 1


def test_slow_and_huge_requests_are_refused_in_time(live: tuple[Any, str]) -> None:
    app, address = live
    began = time.monotonic()
    slow = opened(address, request(b'{"model": ', 500))
    assert slow.recv(4096).startswith(b"HTTP/1.1 408") and time.monotonic() - began < 15
    slow.close()
    huge = httpx2.post(f"{address}/v1/chat/completions", content=b"x" * 30_000, timeout=PATIENCE)
    assert huge.status_code == 413
    chunked = httpx2.post(f"{address}/v1/chat/completions", content=iter([b"x" * 10_000] * 4), timeout=PATIENCE)
    assert chunked.status_code == 413 and idle(app)


def test_more_than_may_wait_is_refused_and_the_rest_is_answered() -> None:
    app = app_of(served("demur/tiny-ar"), slots=1, queue=1)
    with TestClient(app) as client:
        refused = client.post("/v1/chat/completions", json=chat("tell me a story", n=3))
        taken = client.post("/v1/chat/completions", json=chat("tell me a story", n=2))
    assert refused.status_code == 429 and refused.headers["retry-after"] and taken.status_code == 200


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    app = app_of(served("demur/tiny-ar"), timeout=1e-6)
    with TestClient(app) as client:
        late = client.post("/v1/chat/completions", json=chat("tell me a story"))
        assert late.status_code == 504 and late.json()["error"]["code"] == "timeout" and idle(app)


def test_a_killed_server_leaves_whole_lines_that_replay_on_the_recording(tmp_path: Path) -> None:
    one = served("demur/tiny-ar")
    files = [tmp_path / "direction.safetensors", tmp_path / "stream.safetensors"]
    one.watched[0].source.save(files[0])
    one.watched[0].guard.save(files[1])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    guards = [part for file in files for part in ("--guard", str(file))]
    log = tmp_path / "verdicts.jsonl"
    command = [sys.executable, "-m", "demur", "serve", "demur/tiny-ar", *guards, "--port", port, "--log", str(log)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_for(server, f"{address}/ready")
        for prompt in one.prompts[:6]:
            assert httpx2.post(f"{address}/v1/chat/completions", json=chat(prompt), timeout=PATIENCE).status_code == 200
        under_way = [opened(address, request(json.dumps(chat(prompt)).encode())) for prompt in one.prompts]
        time.sleep(0.2)
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()
    assert log.read_bytes().endswith(b"\n") and len(under_way) == len(one.prompts)
    assert not any(prompt in log.read_text() for prompt in one.prompts)
    with TestClient(app_of(one, log=log)) as client:
        assert client.post("/v1/chat/completions", json=chat(one.prompts[-1])).status_code == 200
    entries = read_log(log)
    assert len(entries) >= 9 and entries[-1]["finish_reason"] in ("stop", "content_filter")
    told = ["replay", str(log), str(one.recording.path), *guards]
    renamed = [line.replace('"guard":"direction"', '"guard":"stream"') for line in log.read_text().splitlines()]
    log.write_text("\n".join(renamed) + "\n")
    agreed = CliRunner().invoke(commands, told)
    assert agreed.exit_code == 0 and "0 differ" in agreed.output, agreed.output
    log.write_text(log.read_text().replace('"stopped_at":4', '"stopped_at":8'))
    differing = CliRunner().invoke(commands, [*told, "--json"])
    assert differing.exit_code == 1 and '"logged_stop": 8' in differing.output


def wait_for(server: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx2.get(address, timeout=1).status_code == 200:
                return
        except httpx2.HTTPError:
            time.sleep(0.3)
    raise AssertionError(f"the server did not start: {server.poll()}")


def test_no_request_within_or_outside_of_the_description_is_an_error_of_the_server(live: tuple[Any, str]) -> None:
    app, address = live
    description = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [found.ok() for found in description.get_all_operations()]
    assert len(operations) >= 6
    for operation in operations:
        count = CASES if operation.path == "/v1/chat/completions" else max(3, CASES // 20)

        @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def answered(case: Any) -> None:
            if isinstance(case.body, dict) and len(str(case.body)) % 2:
                case.body["model"] = "demur/tiny-ar"
            response = case.call(timeout=30)
            assert response.status_code < 500, response.text

        answered()
    assert idle(app)
