"""What a client sends and receives, as OpenAI's chat API names it.

In: the body of a request. Out: checked values, and the shapes of answers for the API's own description. Fields that
would be ignored silently are refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

SEED = 2**63
Text = Annotated[str, StringConstraints(max_length=1 << 20)]


class _Given(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Part(_Given):
    """A part of a message; only text can be answered."""

    type: Literal["text"]
    text: Text


class Message(BaseModel):
    """One turn of the conversation; the last is the user's."""

    model_config = ConfigDict(extra="forbid", strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[Part], Field(min_length=1)]
    name: str | None = None
    refusal: str | None = None


class StreamOptions(_Given):
    include_usage: bool = False
    include_obfuscation: bool = False


class PolicyMode(_Given):
    mode: Literal["score", "block"]


class Policy(_Given):
    input: PolicyMode | None = None
    output: PolicyMode | None = None


class ModerationRequest(_Given):
    """mode "score" watches, "block" stops; `model` is what results are to be called by."""

    model: Annotated[str, StringConstraints(max_length=200)] = "demur"
    policy: Policy | None = None


class ChatRequest(BaseModel):
    """A request for one or more answers to a conversation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        """A field that is null asks for nothing, whatever it is called."""
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value

    model: Annotated[str, StringConstraints(max_length=1000)]
    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1)] | None = 1
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-SEED, lt=SEED)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    moderation: ModerationRequest | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    response_format: dict[str, Any] | None = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    logit_bias: dict[str, float] | None = None

    def unsupported(self) -> str | None:
        """The name of a field that asks for what this server does not do; None where there is none."""
        asked = {
            "logprobs": bool(self.logprobs),
            "top_logprobs": bool(self.top_logprobs),
            "frequency_penalty": bool(self.frequency_penalty),
            "presence_penalty": bool(self.presence_penalty),
            "response_format": self.response_format not in (None, {"type": "text"}),
            "tools": bool(self.tools),
            "logit_bias": bool(self.logit_bias),
        }
        return next((name for name, wanted in asked.items() if wanted), None)

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or [])


class ErrorBody(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """Every fault, as OpenAI's clients read them."""

    error: ErrorBody


class ModerationResult(BaseModel):
    type: Literal["moderation_result"] = "moderation_result"
    model: str
    flagged: bool
    categories: dict[str, bool]
    category_scores: dict[str, float]
    category_applied_input_types: dict[str, list[Literal["text"]]]


class ModerationResults(BaseModel):
    type: Literal["moderation_results"] = "moderation_results"
    model: str
    results: list[ModerationResult]


class ModerationAnswer(BaseModel):
    input: ModerationResults
    output: ModerationResults


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None


class Choice(BaseModel):
    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length", "content_filter"]
    logprobs: None = None
    demur: dict[str, Any]


class ChatAnswer(BaseModel):
    """An answer in one piece."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    moderation: ModerationAnswer


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "demur"
    family: str
    guards: list[dict[str, Any]]


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]
