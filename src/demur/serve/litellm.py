"""LiteLLM's generic guardrail: answers of any model, judged by a surrogate that reads their text.

In: the texts of a conversation, as LiteLLM's proxy posts them. Out: NONE or BLOCKED. The states are those of the model
that is served here, made to say the other model's answer; the states of the other model are never seen.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import torch
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from demur.defenses import Verdict
from demur.errors import InputError
from demur.models import Model
from demur.prompts import as_prompts
from demur.recording.generate import encode, pad_left
from demur.samplers import SAMPLERS
from demur.serve.faults import Fault
from demur.serve.guards import Guards, Watched

PATH = "/beta/litellm_basic_guardrail_api"
MOST_CALLS = 4096
"""Conversations that are remembered until their answer comes; the oldest go first."""


class GuardrailRequest(BaseModel):
    """What LiteLLM asks; fields that are not needed here are let pass."""

    model_config = ConfigDict(extra="allow")

    input_type: Literal["request", "response"]
    texts: list[str] = Field(default=[], max_length=16)
    structured_messages: list[dict[str, Any]] | None = None
    litellm_call_id: str | None = None


class GuardrailAnswer(BaseModel):
    """What LiteLLM does: let the texts pass, or refuse them with a reason."""

    action: Literal["NONE", "BLOCKED"]
    blocked_reason: str | None = None
    texts: list[str] | None = None


class Surrogate:
    """Reads answers of other models with this one, as a recording with ``responses=`` does, and judges them.

    One answer at a time; an answer is read up to as many tokens as the guards were made for.
    """

    def __init__(self, model: Model, watched: Sequence[Watched]) -> None:
        self.model = model
        self._guards = Guards(model, watched, 1)
        described = dict(watched[0].sampler)
        self._sampler = SAMPLERS[described.pop("name")](**described)
        self._lock = threading.Lock()

    def read(self, messages: Sequence[dict[str, Any]], answer: str) -> dict[str, Verdict]:
        """What each guard says of an answer in a conversation; `InputError` for what cannot be encoded."""
        prompts = as_prompts([{"id": "0", "messages": _turns_of(messages)}])
        encoded = encode(self.model, prompts, self._sampler, [answer])
        ids, mask = pad_left([one.ids for one in encoded], self.model.pad_token_id)
        options: dict[str, Any] = {"looks": self._guards.looks} if self._guards.looks else {}
        forced = torch.tensor([one.forced.tolist() for one in encoded])
        with self._lock:
            self._guards.open(0)
            try:
                for step in self._sampler.forced_steps(
                    self.model, ids, mask, responses=forced, layers=self._guards.layers, **options
                ):
                    self._guards.judge([0], step, [0])
            finally:
                verdicts = self._guards.close(0)
        return verdicts


def litellm_router(model: Model, watched: Sequence[Watched]) -> APIRouter:
    """The path that LiteLLM's proxy calls, answered by `model` as the surrogate. Raises as `Guards` does."""
    surrogate, router = Surrogate(model, watched), APIRouter(tags=["guardrail"])
    calls: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()

    @router.post(PATH, response_model=GuardrailAnswer)
    def guardrail(body: GuardrailRequest) -> GuardrailAnswer:
        """Judge the answers of a conversation; prompts alone pass, and are remembered for their answers."""
        messages = body.structured_messages or calls.get(body.litellm_call_id or "")
        if body.input_type == "request":
            if body.litellm_call_id and messages:
                calls[body.litellm_call_id] = messages
                while len(calls) > MOST_CALLS:
                    calls.popitem(last=False)
            return GuardrailAnswer(action="NONE")
        if not messages:
            raise Fault(400, "structured_messages: is missing, and no request with this litellm_call_id came before")
        try:
            verdicts = [surrogate.read(messages, text) for text in body.texts]
        except InputError as error:
            raise Fault(400, str(error)) from error
        for one in verdicts:
            for name, verdict in one.items():
                if verdict.stopped_at:
                    reason = f"demur: {name} flags the answer at step {verdict.stopped_at}"
                    return GuardrailAnswer(action="BLOCKED", blocked_reason=reason)
        return GuardrailAnswer(action="NONE")

    return router


def _turns_of(messages: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The conversation up to the last message of the user."""
    turns = [{"role": str(one.get("role")), "content": _text_of(one.get("content"))} for one in messages]
    last = max((place for place, turn in enumerate(turns) if turn["role"] == "user"), default=None)
    if last is None:
        raise InputError("structured_messages: holds no message of a user")
    return turns[: last + 1]


def _text_of(content: Any) -> str:
    """A message's text; of a list of parts the texts, joined."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return str(content or "")
