"""LiteLLM's generic guardrail, answered by a surrogate: it decides as on a recording of the forced answers."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

import demur
from demur.serve.litellm import PATH
from serving import Served, app_of, served

ANSWER = "Sure, here is how you do it: first you"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app_of(served())) as found:
        yield found


def asked(prompt: str, texts: list[str], **more: Any) -> dict[str, Any]:
    return {
        "input_type": "response",
        "texts": texts,
        "structured_messages": [{"role": "user", "content": prompt}],
        **more,
    }


def test_answers_are_judged_as_on_a_recording_of_them(client: TestClient) -> None:
    one: Served = served()
    watched = one.watched[0]
    prompts, answers = one.prompts[::2], one.recording.table["text"].tolist()[::2]
    recording = demur.record(
        one.model,
        prompts,
        one.model.default_sampler(steps=32),
        responses=answers,
        layers=watched.source.provenance_.layers,
    )
    stops = watched.guard.stops(watched.source.place_errors(watched.source.states(recording)))
    found = [
        client.post(PATH, json=asked(*pair)).json() for pair in zip(prompts, [[one] for one in answers], strict=True)
    ]
    assert [one["action"] == "BLOCKED" for one in found] == (stops > 0).tolist()
    assert 0 < (stops > 0).sum() < len(stops)
    blocked = found[int(np.flatnonzero(stops)[0])]
    assert "flags the answer at step" in blocked["blocked_reason"]


def test_the_prompt_of_an_answer_may_have_come_before(client: TestClient) -> None:
    one = served()
    prompt, texts = one.prompts[0], [ANSWER]
    body = asked(prompt, [prompt], litellm_call_id="a", model="gpt-5", request_data={"user": "x"})
    assert client.post(PATH, json={**body, "input_type": "request"}).json()["action"] == "NONE"
    later = client.post(PATH, json={"input_type": "response", "texts": texts, "litellm_call_id": "a"}).json()
    assert later == client.post(PATH, json=asked(prompt, texts)).json()
    for lost in ({"input_type": "response", "texts": texts}, {**body, "structured_messages": [{"role": "system"}]}):
        answer = client.post(PATH, json=lost)
        assert answer.status_code == 400 and "structured_messages" in answer.json()["error"]["message"]


def test_parts_of_a_message_and_systems_are_read(client: TestClient) -> None:
    one = served()
    parts = [{"type": "text", "text": one.prompts[0]}, {"type": "image_url", "image_url": {"url": "x"}}]
    said = {"structured_messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "partly"}]}
    both = [client.post(PATH, json={**asked(one.prompts[0], [ANSWER]), **more}).json() for more in ({}, said)]
    assert both[0] == both[1]
