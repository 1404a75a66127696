"""The guarded server, asked by OpenAI's own client over a real connection: verdicts are those of a recording."""

import copy
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from typing import Any

import httpx2
import numpy as np
import openai
import pytest
import torch
from fastapi import FastAPI
from fastapi.testclient import TestClient

from serving import PATIENCE, Served, app_of, changed, chat, running, served, served_on_looks

REQUESTS = int(os.environ.get("DEMUR_SERVE_REQUESTS", "48"))
"""200 in `make test-serve`."""
MODELS = ["demur/tiny-ar", "demur/tiny-diffusion"]


@pytest.fixture(scope="module", params=MODELS)
def live_app(request: pytest.FixtureRequest) -> Iterator[tuple[Served, FastAPI, str]]:
    one = served(request.param)
    app = app_of(one)
    with running(app) as address:
        yield one, app, address


@pytest.fixture
def live(live_app: tuple[Served, FastAPI, str]) -> tuple[Served, str]:
    return live_app[0], live_app[2]


@pytest.fixture(scope="module")
def ar() -> Iterator[tuple[Served, TestClient]]:
    one = served("demur/tiny-ar")
    with TestClient(app_of(one)) as client:
        yield one, client


@lru_cache
def client_of(address: str) -> openai.OpenAI:
    """One for all threads: each new one reads the certificates of all authorities."""
    return openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0, timeout=PATIENCE)


def ask(address: str, one: Served, row: int, *, stream: bool, **more: Any) -> tuple[str, str, Any]:
    """Text, finish reason and the moderation of an answer, by OpenAI's client."""
    client = client_of(address)
    messages = [{"role": "user", "content": one.prompts[row]}]
    if not stream:
        answer = client.chat.completions.create(model=one.model.name, messages=messages, **more)  # type: ignore[call-overload]
        return answer.choices[0].message.content, answer.choices[0].finish_reason, answer.moderation
    text, reason, moderation = "", "", None
    for chunk in client.chat.completions.create(model=one.model.name, messages=messages, stream=True, **more):  # type: ignore[call-overload]
        text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        reason = (chunk.choices and chunk.choices[0].finish_reason) or reason
        moderation = chunk.moderation or moderation
    return text, reason, moderation


def test_requests_at_once_end_as_the_recording_says_plain_and_streamed(live: tuple[Served, str]) -> None:
    one, address = live
    rows = [number % len(one.prompts) for number in range(REQUESTS)]
    with ThreadPoolExecutor(32) as pool:
        found = list(pool.map(lambda at: ask(address, one, at[1], stream=at[0] % 2 == 1), enumerate(rows)))
    stopped = [reason == "content_filter" for _, reason, _ in found]
    assert stopped == [bool(one.stops[row]) for row in rows] and 5 < sum(stopped) < len(rows) - 5
    for row, (text, reason, moderation) in zip(rows, found, strict=True):
        final = one.recording.steps_text(row)[-1].committed
        assert text == final if reason == "stop" else final.startswith(text)
        assert moderation.output.results[0].flagged == (reason == "content_filter")
        assert (moderation.output.results[0].category_scores["jailbreak"] > 0.5) == (reason == "content_filter")


def test_a_cache_that_fills_starts_requests_again_and_changes_no_verdict() -> None:
    one = served("demur/tiny-ar")
    rows = range(0, len(one.prompts), 2)
    with running(app_of(one, slots=8, cache=1, max_prompt_tokens=64)) as address, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: ask(address, one, row, stream=row % 4 == 0), rows))
    assert [reason == "content_filter" for _, reason, _ in found] == [bool(one.stops[row]) for row in rows]
    for row, (text, reason, _) in zip(rows, found, strict=True):
        assert reason != "stop" or text == one.recording.steps_text(row)[-1].committed


def test_the_step_and_the_score_are_those_of_the_recording(live: tuple[Served, str]) -> None:
    one, address = live
    for row in (0, len(one.prompts) - 1):
        body = chat(one.prompts[row], one.model.name)
        answer = httpx2.post(f"{address}/v1/chat/completions", json=body, timeout=PATIENCE).json()
        said = answer["choices"][0]["demur"]
        assert said["stopped_at"] == one.stops[row]
        looks = said["guards"][0]["looks"]
        assert said["guards"][0]["score"] == pytest.approx(one.scores[row, looks - 1], rel=1e-3, abs=1e-3)


def test_the_server_runs_without_the_kernels_that_plan_for_every_shape_and_leaves_them_as_they_were() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    app = app_of(served("demur/tiny-ar"))
    with TestClient(app):
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.cudnn_sdp_enabled() is before


def wire(address: str, body: dict[str, Any]) -> list[str]:
    """The text of every event of a stream, as it arrives on the connection."""
    found = []
    with httpx2.stream("POST", f"{address}/v1/chat/completions", json=body, timeout=PATIENCE) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                choices = json.loads(line[6:])["choices"]
                found += [choice["delta"]["content"] for choice in choices if choice["delta"].get("content")]
    return found


@pytest.mark.parametrize("hold", ["look", "all", "none"])
def test_what_is_held_back_never_reaches_the_wire(live_app: tuple[Served, FastAPI, str], hold: str) -> None:
    one, app, address = live_app
    name = one.model.name
    stopped, harmless = int(np.flatnonzero(one.stops)[-1]), int(np.flatnonzero(one.stops == 0)[-1])
    stop = int(one.stops[stopped])
    looks = one.watched[0].reading(one.model).steps
    before = max([0, *(step for step in looks if step < stop)])
    cleared = one.until(stopped, before) if before else ""
    with changed(app, hold=hold):
        text = "".join(wire(address, chat(one.prompts[stopped], name, stream=True)))
        whole = wire(address, chat(one.prompts[harmless], name, stream=True))
    assert text == {"look": cleared, "all": "", "none": one.until(stopped, stop)}[hold]
    assert "".join(whole) == one.recording.steps_text(harmless)[-1].committed
    assert len(whole) == 1 if hold == "all" else len(whole) > 2


def test_mode_score_watches_and_stops_nothing(live_app: tuple[Served, FastAPI, str]) -> None:
    one, app, address = live_app
    row = int(np.flatnonzero(one.stops)[0])
    policy = {"moderation": {"model": "demur", "policy": {"output": {"mode": "score"}}}}
    text, reason, moderation = ask(address, one, row, stream=False, extra_body=policy)
    assert reason == "stop" and moderation.output.results[0].flagged
    assert text == one.recording.steps_text(row)[-1].committed
    with changed(app, enforce=True):
        body = chat(one.prompts[row], one.model.name, **policy)
        refused = httpx2.post(f"{address}/v1/chat/completions", json=body, timeout=PATIENCE)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "moderation.policy.output.mode"


def test_a_refusal_takes_the_place_of_what_was_withheld(ar: tuple[Served, TestClient]) -> None:
    one, client = ar
    row = int(np.flatnonzero(one.stops)[0])
    with changed(client.app, refusal="I will not.", hold="all"):  # type: ignore[arg-type]
        answer = client.post("/v1/chat/completions", json=chat(one.prompts[row])).json()["choices"][0]
    assert answer["message"]["content"] == "I will not." and answer["finish_reason"] == "content_filter"


def test_sampling_is_reproducible_by_seed_and_choices_differ(ar: tuple[Served, TestClient]) -> None:
    one, client = ar
    body = chat(one.prompts[-1], temperature=1.5, seed=7, n=3, moderation={"policy": {"output": {"mode": "score"}}})
    first, second = (client.post("/v1/chat/completions", json=body).json() for _ in range(2))
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert texts == [choice["message"]["content"] for choice in second["choices"]] and len(set(texts)) > 1
    narrow = client.post("/v1/chat/completions", json={**body, "top_p": 1e-6, "n": 1}).json()
    assert narrow["choices"][0]["message"]["content"] == one.recording.steps_text(-1 % len(one.prompts))[-1].committed


def test_draws_are_those_of_the_sampler(ar: tuple[Served, TestClient]) -> None:
    import demur

    one, client = ar
    sampler = one.model.default_sampler(32, temperature=1.2, seed=3)
    recorded = demur.record(one.model, one.prompts[-2:-1], sampler, progress=False).steps_text(0)[-1].committed
    score = {"policy": {"output": {"mode": "score"}}}
    body = chat(one.prompts[-2], temperature=1.2, seed=3, moderation=score)
    assert client.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]["content"] == recorded


@pytest.mark.parametrize("stream", [False, True])
def test_stop_texts_and_limits_end_an_answer(ar: tuple[Served, TestClient], stream: bool) -> None:
    one, client = ar
    row = int(np.flatnonzero(one.stops == 0)[-1])
    whole = one.recording.steps_text(row)[-1].committed

    def asked(**more: Any) -> tuple[str, str, int]:
        body = chat(one.prompts[row], stream=stream, **more)
        if stream:
            body["stream_options"] = {"include_usage": True}
        answer = client.post("/v1/chat/completions", json=body)
        if not stream:
            choice = answer.json()["choices"][0]
            return choice["message"]["content"], choice["finish_reason"], answer.json()["usage"]["completion_tokens"]
        chunks = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
        assert answer.text.rstrip().endswith("data: [DONE]")
        choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        return text, choices[-1]["finish_reason"], chunks[-1]["usage"]["completion_tokens"]

    cut = whole.index(". ") + 3
    assert asked(stop=[whole[cut : cut + 9], "never"])[:2] == (whole[:cut], "stop")
    for name in ("max_tokens", "max_completion_tokens"):
        text, reason, tokens = asked(**{name: 5})
        assert (reason, tokens) == ("length", 5) and whole.startswith(text) and 0 < len(text) < len(whole)
    assert asked()[0] == whole


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"n": 99}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": [{"role": "assistant", "content": "hi"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, "messages"),
        ({"frobnicate": 1}, "frobnicate"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages.0.content"),
    ],
)
def test_what_cannot_be_done_is_said_by_name(ar: tuple[Served, TestClient], more: Any, param: str) -> None:
    content = json.dumps({**chat("tell me a story"), **more})
    answer = ar[1].post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert answer.status_code == 400 and error["param"].startswith(param) and error["message"]


def test_other_paths_and_models_are_not_found(ar: tuple[Served, TestClient]) -> None:
    client = ar[1]
    assert client.post("/v1/chat/completions", json=chat("hi", "gpt")).json()["error"]["code"] == "model_not_found"
    assert client.get("/v1/models").json()["data"][0]["id"] == "demur/tiny-ar"
    assert client.get("/v1/models/demur/tiny-ar").status_code == 200
    assert client.get("/v1/models/other").status_code == client.get("/v2").status_code == 404
    assert client.get("/health").json() == {"status": "ok"} and client.get("/ready").status_code == 200
    page = client.get("/metrics").text
    for name in ("requests_total", "stopped_step_bucket", "guard_score_bucket", "guard_seconds_total"):
        assert f"demur:{name}" in page
    for name in ("num_requests_waiting", "num_requests_running", "time_to_first_token_seconds_bucket"):
        assert f"demur:{name}" in page


def test_a_key_is_needed_where_one_is_set_but_for_the_state() -> None:
    with TestClient(app_of(served("demur/tiny-ar"), keys=("first-secret", "second-secret"))) as client:
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        for path in ("/v1/models", "/metrics"):
            assert client.get(path).status_code == 401
            assert client.get(path, headers={"authorization": "Bearer wrong"}).json()["error"]["code"]
            for key in ("first-secret", "second-secret"):
                assert client.get(path, headers={"authorization": f"Bearer {key}"}).status_code == 200


@pytest.fixture(scope="module")
def on_looks() -> Served:
    return served_on_looks()


def test_whole_answers_are_judged_at_their_looks_and_the_prompt_before_the_first_token(on_looks: Served) -> None:
    with TestClient(app_of(on_looks)) as client, ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(lambda prompt: client.post("/v1/chat/completions", json=chat(prompt)), on_looks.prompts)
        )
    for answer, stop, scores in zip(answers, on_looks.stops, on_looks.scores, strict=True):
        if answer.status_code == 400:
            assert answer.json()["error"]["code"] == "content_filter" and stop == 1
            assert scores[0] > on_looks.watched[0].guard.threshold_
        else:
            said = answer.json()["choices"][0]["demur"]
            assert said["stopped_at"] == stop
            assert answer.json()["moderation"]["input"]["results"][0]["flagged"] is False
    assert (on_looks.stops > 0).any() and (on_looks.stops == 0).any()


@pytest.mark.parametrize("stream", [False, True])
def test_a_blocked_prompt_is_a_400_and_watching_it_is_not(on_looks: Served, stream: bool) -> None:
    strict = copy.deepcopy(on_looks.watched[0].guard)
    strict.threshold_ = -1e9
    one = replace(on_looks, watched=[replace(on_looks.watched[0], guard=strict)])
    with TestClient(app_of(one, refusal="Not this.")) as client:
        blocked = client.post("/v1/chat/completions", json=chat(one.prompts[0], stream=stream))
        assert blocked.status_code == 400
        assert blocked.json()["error"]["code"] == "content_filter" and blocked.json()["error"]["message"] == "Not this."
        watch = {"policy": {"input": {"mode": "score"}, "output": {"mode": "score"}}}
        answer = client.post("/v1/chat/completions", json=chat(one.prompts[-1], moderation=watch))
    assert answer.status_code == 200 and answer.json()["moderation"]["input"]["results"][0]["flagged"] is True
    assert answer.json()["choices"][0]["finish_reason"] == "stop"
