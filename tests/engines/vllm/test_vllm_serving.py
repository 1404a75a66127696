"""`vllm serve` with DEMUR_GUARD: the stops of the recording, no token before its verdict, and refusals by name."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import openai
import pytest

from demur.bundled import bundled_model
from serving import Served, served

STARTS_WITHIN = 1200.0
SERVER = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--max-num-seqs", "16"]
"""What `vllm serve` runs; the command itself asks for a package of the name vllm, which the CPU wheel is not."""


def start(guards: Path, log: Path, *more: str, **environment: str) -> tuple[subprocess.Popen[bytes], str]:
    """A guarded server and its address; it may take a minute to answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = {"DEMUR_GUARD": str(guards), "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    said |= {"VLLM_ENGINE_READY_TIMEOUT_S": str(int(STARTS_WITHIN)), **environment}
    asked = ["--model", str(bundled_model("demur/tiny-ar")), "--served-model-name", "tiny", "--port", str(port), *more]
    with log.open("wb") as file:
        process = subprocess.Popen([*SERVER, *asked], env={**os.environ, **said}, stdout=file, stderr=file)
    return process, f"http://127.0.0.1:{port}"


def ready(process: subprocess.Popen[bytes], address: str) -> bool:
    """Whether the server came to answer, and did not end first."""
    deadline = time.monotonic() + STARTS_WITHIN
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx2.get(f"{address}/health", timeout=5).status_code == 200:
                return True
        except httpx2.HTTPError:
            time.sleep(1)
    return False


@pytest.fixture(scope="module")
def guards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a guard and what it watches were shared as."""
    folder = tmp_path_factory.mktemp("guards")
    watched = served().watched[0]
    watched.guard.save_pretrained(folder / "shared", source=watched.source)
    return folder / "shared"


@pytest.fixture(scope="module")
def live(guards: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    log = tmp_path_factory.mktemp("vllm") / "log.txt"
    process, address = start(guards, log, "--max-model-len", "256")
    try:
        assert ready(process, address), log.read_text()[-4000:]
        yield address
    finally:
        process.terminate()
        process.wait(60)


def ask(address: str, prompt: str, *, stream: bool, **more: Any) -> tuple[str, str, Any, Any]:
    """Text, finish reason, moderation and demur's numbers of an answer, by OpenAI's client."""
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0, timeout=300)
    # The system prompt is part of what the guard was made with.
    messages = [{"role": "system", "content": "You are a helpful assistant"}, {"role": "user", "content": prompt}]
    options: dict[str, Any] = {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 32, **more}
    if not stream:
        answer = client.chat.completions.create(**options)
        choice = answer.choices[0]
        return choice.message.content or "", choice.finish_reason, answer.moderation, choice.demur
    text, reason, moderation, numbers = "", "", None, None
    for chunk in client.chat.completions.create(stream=True, **options):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
            numbers = getattr(choice, "demur", None) or numbers
        moderation = chunk.moderation or moderation
    return text, reason, moderation, numbers


def test_requests_at_once_end_as_the_recording_says_plain_and_streamed(live: str) -> None:
    one: Served = served()
    rows = list(range(len(one.prompts))) * 2
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda at: ask(live, one.prompts[at[1]], stream=at[0] % 2 == 1), enumerate(rows)))
    assert [numbers["stopped_at"] for *_, numbers in found] == [int(one.stops[row]) for row in rows]
    assert 5 < sum(reason == "content_filter" for _, reason, *_ in found) < len(rows) - 5
    looks = one.watched[0].reading(one.model).steps
    for row, (text, reason, moderation, numbers) in zip(rows, found, strict=True):
        final, stop = one.recording.steps_text(row)[-1].committed, int(one.stops[row])
        assert (reason == "content_filter") == (stop > 0) == moderation.output.results[0].flagged
        before = max([0, *(step for step in looks if step < stop)])
        # vLLM keeps the space before the first word.
        assert text.strip() == (final if not stop else one.until(row, before) if before else "").strip()
        if stop:  # looks behind the end of an answer see no state of its end, which vLLM never feeds
            look = numbers["guards"][0]["looks"]
            assert numbers["guards"][0]["score"] == pytest.approx(one.scores[row, look - 1], rel=1e-3, abs=1e-3)


def test_no_option_of_a_request_undoes_a_stop(live: str) -> None:
    one = served()
    row = int(np.flatnonzero(one.stops)[0])
    for more in (
        {"ignore_eos": True, "min_tokens": 32},
        {"logit_bias": {"1": -100, "0": -100}},
        {"bad_words": ["a"]},
        {"skip_special_tokens": False},
        {"stop": ["zzz"]},
    ):
        options = {key: more.pop(key) for key in ("logit_bias", "stop") if key in more}
        text, reason, _, numbers = ask(live, one.prompts[row], stream=False, **options, extra_body=more)
        assert reason == "content_filter" and numbers["stopped_at"] == one.stops[row], more
        assert "<" not in text


def test_log_probabilities_wait_with_their_tokens_and_choices_are_judged_alone(live: str) -> None:
    one = served()
    harmless = int(np.flatnonzero(one.stops == 0)[-1])
    body = {"model": "tiny", "messages": [{"role": "user", "content": one.prompts[harmless]}], "max_tokens": 12}
    body |= {"temperature": 0.1, "logprobs": True, "top_logprobs": 2, "n": 2}
    answer = httpx2.post(f"{live}/v1/chat/completions", json=body, timeout=300).json()
    said = [choice["logprobs"]["content"] for choice in answer["choices"]]
    assert sum(map(len, said)) == answer["usage"]["completion_tokens"] > 0
    assert all(len(token["top_logprobs"]) == 2 for tokens in said for token in tokens)
    assert len(answer["moderation"]["output"]["results"]) == 2


def test_beams_are_refused_and_the_guards_are_told(live: str) -> None:
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "use_beam_search": True, "n": 2}
    answer = httpx2.post(f"{live}/v1/chat/completions", json=body, timeout=300)
    assert answer.status_code >= 400 and "beam search cannot be guarded" in answer.text
    facts = httpx2.get(f"{live}/demur/guards", timeout=60).json()
    assert (facts["mode"], facts["hold"]) == ("block", "look")
    assert facts["guards"][0]["limit"] == pytest.approx(served().watched[0].guard.threshold_)


def test_plain_completions_are_stopped_too(live: str) -> None:
    one = served()
    row = int(np.flatnonzero(one.stops)[0])
    ids = one.model.encode(one.prompts[row])
    body = {"model": "tiny", "prompt": ids, "temperature": 0, "max_tokens": 32}
    answer = httpx2.post(f"{live}/v1/completions", json=body, timeout=300).json()
    assert answer["choices"][0]["finish_reason"] == "content_filter"


@pytest.mark.parametrize(
    ("said", "environment"),
    [
        ("not of Model Runner V2", {"VLLM_USE_V2_MODEL_RUNNER": "1"}),
        ("DEMUR_HOLD is 'never'", {"DEMUR_HOLD": "never"}),
        ("there is no such file", {"DEMUR_GUARD": "/nothing.safetensors"}),
    ],
)
def test_a_server_that_cannot_be_guarded_does_not_start(
    said: str, environment: dict[str, str], guards: Path, tmp_path: Path
) -> None:
    process, address = start(guards, tmp_path / "log.txt", **environment)
    assert not ready(process, address)
    assert process.returncode and said in (tmp_path / "log.txt").read_text()


def test_another_model_does_not_start(guards: Path, tmp_path: Path) -> None:
    process, address = start(guards, tmp_path / "log.txt", "--dtype", "bfloat16")
    assert not ready(process, address)
    log = (tmp_path / "log.txt").read_text()
    assert process.returncode and "do not belong together" in log and "The dtype counts" in log
