"""What the vLLM plugin does in the server's process, without vLLM: tokens wait for verdicts, answers say them."""

import asyncio
import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from demur.defenses import Verdict
from demur.engines.vllm.front import Front
from demur.engines.vllm.held import Held
from demur.engines.vllm.messages import Said, decode, encode
from demur.engines.vllm.plugin import register
from demur.engines.vllm.settings import Settings
from demur.errors import InputError

GUARD = SimpleNamespace(name="direction", guard=SimpleNamespace(threshold_=2.0))


def said(cleared: int | None, *, stopped: int = 0, own: Any = None) -> Said:
    return Said({"direction": Verdict(5, 1, 3.0 if stopped else 1.0, stopped)}, cleared, bool(stopped), own)


def token(number: int, say: Said, *, ended: bool = False, logprobs: Any = None) -> Any:
    """One token as vLLM's scheduler sends it."""
    reason = 0 if ended else None
    return SimpleNamespace(
        request_id="a", new_token_ids=[number], stop_reason=encode(say), finish_reason=reason, new_logprobs=logprobs
    )


@pytest.mark.parametrize(
    ("hold", "stopped", "shown"),
    [
        ("look", 0, [[], [], [], [1, 2], [], [3, 4, 5, 6]]),
        ("look", 4, [[], [], [], [1, 2], [], []]),
        ("all", 0, [[], [], [], [], [], [1, 2, 3, 4, 5, 6]]),
        ("all", 4, [[], [], [], [], [], []]),
        ("none", 4, [[1], [2], [3], [4], [5], []]),
    ],
)
def test_tokens_wait_for_their_verdict(hold: str, stopped: int, shown: list[list[int]]) -> None:
    held, found = Held(hold), []
    for number in range(1, 7):
        last = number == 6
        output = token(number, say := said(2 if number >= 4 else 0, stopped=stopped if last else 0), ended=last)
        held.release(output, say)
        found.append(output.new_token_ids)
    assert found == shown


def test_log_probabilities_wait_with_their_tokens() -> None:
    from collections import namedtuple

    lists = namedtuple("lists", "ids logprobs ranks counts")
    held = Held("look")
    outputs = [
        token(n, said(0), logprobs=lists(np.full((1, 3), n), np.zeros((1, 3)), np.ones(1), None)) for n in (1, 2)
    ]
    for output in outputs:
        held.release(output, said(0))
    assert [output.new_logprobs for output in outputs] == [None, None]
    last = token(3, said(None), logprobs=lists(np.full((1, 3), 3), np.zeros((1, 3)), np.ones(1), None))
    held.release(last, said(None))
    assert last.new_token_ids == [1, 2, 3] and last.new_logprobs.ids[:, 0].tolist() == [1, 2, 3]


def test_what_is_said_travels_as_text() -> None:
    infinite = Said({"g": Verdict(1, 1, float("inf"), 1)}, None, True, 7, True)
    assert decode(encode(infinite)) == infinite
    assert decode("stop") is decode(None) is decode(5) is None


def finished(front: Front, say: Said, index: int = 0) -> Any:
    """A request of which nothing was shown, ended by vLLM."""
    state = SimpleNamespace(parent_req=None, external_req_id="chat-1")
    front.before({"a": state}, [output := token(9, say, ended=True)])
    assert output.stop_reason == say.own
    return front.after(state, SimpleNamespace(index=index, finish_reason="stop"))


def test_a_stopped_answer_says_so_plain_and_streamed_even_where_nothing_was_shown() -> None:
    front = Front(Settings(("x",)), [GUARD])  # type: ignore[list-item]
    assert finished(front, said(0, stopped=4, own=13)).finish_reason == "content_filter"
    answer = SimpleNamespace(model="m", choices=[SimpleNamespace(index=0)])
    front.answered("chat-1", answer)
    assert answer.moderation["output"]["results"][0]["flagged"] and answer.choices[0].demur["stopped_at"] == 4

    finished(front, said(0, stopped=4))
    head = {"id": "chat-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    first = {**head, "choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]}

    async def lines() -> AsyncIterator[str]:
        yield f"data: {json.dumps(first)}\n\n"
        yield "data: [DONE]\n\n"

    async def all_of() -> list[str]:
        return [line async for line in front.streamed("chat-1", lines())]

    begun, last, done = asyncio.run(all_of())
    assert json.loads(begun[6:]) == first and done == "data: [DONE]\n\n"
    chunk = json.loads(last[6:])
    assert chunk["choices"][0]["finish_reason"] == "content_filter" and chunk["id"] == "chat-1"
    assert chunk["moderation"]["output"]["results"][0]["flagged"]


def test_an_answer_that_passed_keeps_its_reason() -> None:
    front = Front(Settings(("x",)), [GUARD])  # type: ignore[list-item]
    assert finished(front, said(None, own="END")).finish_reason == "stop"


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEMUR_GUARD", raising=False)
    assert Settings.read() is None
    register()  # nothing is imported of vLLM, which is not installed here
    monkeypatch.setenv("DEMUR_GUARD", "a:b")
    monkeypatch.setenv("DEMUR_MODE", "score")
    assert Settings.read() == Settings(("a", "b"), mode="score")
    monkeypatch.setenv("DEMUR_HOLD", "never")
    with pytest.raises(InputError, match="DEMUR_HOLD is 'never'; give one of look, none, all"):
        Settings.read()
