"""A request for a chat answer, from its body to its answer or its stream of events.

In: checked requests. Out: answers, or server-sent events, with verdicts. HTTP itself is left to `app`, the making of
tokens to the engine.
"""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from demur.errors import InputError
from demur.models import Model
from demur.prompts.messages import conversation
from demur.serve.answer import Answer, Piece
from demur.serve.engines.engine import Engine, EngineDown
from demur.serve.faults import Fault
from demur.serve.guards import Watched
from demur.serve.job import Job
from demur.serve.metrics import Metrics
from demur.serve.schema import AnswerMessage, ChatAnswer, ChatRequest, Choice, ModerationAnswer, Usage
from demur.serve.settings import Settings
from demur.serve.verdict_log import VerdictLog, prompt_key
from demur.serve.verdicts import moderation_of, numbers_of


@dataclass(eq=False)
class Call:
    """A request under way: what was asked, and a choice an answer."""

    id: str
    request: ChatRequest
    turns: list[dict[str, str]]
    ids: list[int]
    answers: list[Answer]
    texts: list[str]
    created: int
    ends: dict[int, Piece] = field(default_factory=dict)

    @property
    def judged_by(self) -> str:
        """The name of the moderation model in results."""
        return self.request.moderation.model if self.request.moderation else "demur"


class Chat:
    """Answers requests with one model, one engine and its guards.

    name : what clients call the model. temperature : where a request names none. longest : most tokens of an answer.
    """

    def __init__(
        self,
        model: Model,
        engine: Engine,
        watched: Sequence[Watched],
        settings: Settings,
        *,
        longest: int,
        temperature: float = 0.0,
        name: str | None = None,
        log: VerdictLog | None = None,
    ) -> None:
        self.model, self.engine, self.watched, self.settings = model, engine, list(watched), settings
        self.name, self.longest, self.temperature, self.log = name or model.name, longest, temperature, log
        self.metrics = Metrics(engine)
        self._fingerprint = model.fingerprint
        self._encoder = ThreadPoolExecutor(1, "demur-encode")  # one thread: tokenizers are not made for several

    async def begin(self, request: ChatRequest) -> Call:
        """Check a request and set the engine to work on it; raises `Fault` for one that cannot be answered."""
        self._require_supported(request)
        turns = self._turns(request)
        loop = asyncio.get_running_loop()
        ids = await loop.run_in_executor(self._encoder, self._encoded, turns)
        most = self._most_tokens(request, len(ids))
        count = request.n or 1
        if self.engine.running + self.engine.waiting + count > self.settings.slots + self.settings.queue:
            raise Fault(429, "too many requests are waiting; try again later", headers={"retry-after": "1"})
        call = Call(f"chatcmpl-{uuid.uuid4().hex}", request, turns, ids, [], [""] * count, int(time.time()))
        jobs = [self._job(request, f"{call.id}-{place}", ids, most, place) for place in range(count)]
        hold = self.settings.hold
        call.answers = [Answer(self.model, job, hold, request.stops, self.engine.cancel) for job in jobs]
        try:
            for job in jobs:
                self.engine.submit(job)
        except EngineDown as fault:
            self.end(call)
            raise Fault(503, str(fault), code="engine_down") from fault
        return call

    async def whole(self, call: Call) -> ChatAnswer:
        """The answer in one piece."""
        async with aclosing(self.pieces(call)) as pieces:
            async for _ in pieces:
                pass
        return ChatAnswer(
            id=call.id,
            created=call.created,
            model=self.name,
            choices=[self._choice(call, place) for place in range(len(call.answers))],
            usage=self._usage(call),
            moderation=self._moderation(call),
        )

    async def pieces(self, call: Call) -> AsyncGenerator[tuple[int, Piece], None]:
        """Every piece of every choice as it comes, its place among the choices with it; at the end, places are free."""
        arrived: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()

        async def carry(place: int, answer: Answer) -> None:
            async with aclosing(answer.pieces()) as pieces:
                async for piece in pieces:
                    arrived.put_nowait((place, piece))

        tasks = [asyncio.create_task(carry(place, answer)) for place, answer in enumerate(call.answers)]
        try:
            while len(call.ends) < len(tasks):
                place, piece = await arrived.get()
                piece = self._with_refusal(call, place, piece)
                call.texts[place] += piece.text
                if piece.text and call.answers[place].job.first_token is None:
                    self._first(call.answers[place].job)
                if piece.reason is not None:
                    call.ends[place] = piece
                    self._ended(call, place, piece)
                if piece.by_prompt and piece.reason == "content_filter":
                    message = (
                        self.settings.refusal or "the prompt was blocked by the guard before anything was generated"
                    )
                    raise Fault(400, message, param="messages", code="content_filter")
                yield place, piece
                if piece.reason == "error":
                    raise Fault(500, f"the engine failed: {piece.fault}", code="engine_fault")
        finally:
            for task in tasks:
                task.cancel()
            self.end(call)

    def end(self, call: Call) -> None:
        """Free the places of a call, whether it is done or given up."""
        for place, answer in enumerate(call.answers):
            if not answer.ended and place not in call.ends:
                self.metrics.requests.labels("cancelled").inc()
            answer.close()

    async def events(self, call: Call) -> AsyncGenerator[dict[str, Any], None]:
        """The chunks of a stream; the first comes with the first text that may be shown."""
        begun: set[int] = set()
        async with aclosing(self.pieces(call)) as pieces:
            async for place, piece in pieces:
                if place not in begun:
                    begun.add(place)
                    yield self._chunk(call, place, {"role": "assistant", "content": ""})
                if piece.text:
                    yield self._chunk(call, place, {"content": piece.text})
                if piece.reason is not None:
                    yield self._chunk(call, place, {}, piece.reason, demur=self._facts(piece))
        yield {**self._head(call), "choices": [], "moderation": self._moderation(call).model_dump()}
        options = call.request.stream_options
        if options is not None and options.include_usage:
            yield {**self._head(call), "choices": [], "usage": self._usage(call).model_dump()}

    def _require_supported(self, request: ChatRequest) -> None:
        if request.model != self.name:
            raise Fault(
                404, f"the model {request.model!a:.200} is not served here", param="model", code="model_not_found"
            )
        if name := request.unsupported():
            raise Fault(400, f"{name} is not supported by this server", param=name, code="unsupported_parameter")
        if (request.n or 1) > self.settings.max_choices:
            raise Fault(400, f"n may be at most {self.settings.max_choices}", param="n")
        if request.top_p is not None and request.top_p < 1 and not self.engine.adjustable:
            raise Fault(400, "top_p is not supported for this model", param="top_p", code="unsupported_parameter")
        if request.stream_options is not None and not request.stream:
            raise Fault(400, "stream_options is only for stream=true", param="stream_options")
        for side in ("input", "output"):
            if self.settings.enforce and not self._blocks(request, side):
                raise Fault(400, "this server always blocks", param=f"moderation.policy.{side}.mode")

    def _turns(self, request: ChatRequest) -> list[dict[str, str]]:
        try:
            given = [one.model_dump(include={"role", "content"}) for one in request.messages]
            found = conversation("the request", given, None) or []
        except InputError as fault:
            raise Fault(400, str(fault), param="messages") from fault
        return [{"role": turn.role, "content": turn.content} for turn in found]

    def _encoded(self, turns: list[dict[str, str]]) -> list[int]:
        try:
            ids = self.model.encode(turns[-1]["content"], turns[:-1])
        except (InputError, ValueError) as fault:
            raise Fault(400, str(fault), param="messages") from fault
        if not ids:
            raise Fault(400, "the conversation has no tokens", param="messages")
        if self.model.mask_token_id is not None and self.model.mask_token_id in ids:
            raise Fault(400, "a message holds the model's mask token; leave it out", param="messages")
        return ids

    def _most_tokens(self, request: ChatRequest, prompt: int) -> int:
        """How many tokens the answer may have; raises `Fault` for a prompt that leaves no room for one."""
        limit = self.settings.max_prompt_tokens
        if prompt > limit:
            raise Fault(
                400,
                f"the prompt has {prompt} tokens; at most {limit} are taken",
                param="messages",
                code="context_length_exceeded",
            )
        asked = request.max_completion_tokens or request.max_tokens or self.longest
        most, context = min(asked, self.longest), self.model.context_length
        canvas = most if self.model.traits.left_to_right else self.longest
        if context is not None and prompt + canvas > context:
            most = min(most, context - prompt) if self.model.traits.left_to_right else 0
        if most < 1:
            raise Fault(
                400,
                f"a prompt of {prompt} tokens leaves no room for an answer in the model's {context}",
                param="messages",
                code="context_length_exceeded",
            )
        return most

    def _blocks(self, request: ChatRequest, side: str) -> bool:
        """Whether what a guard flags is blocked: what the request says of its input or output, or else the operator."""
        policy = request.moderation.policy if request.moderation else None
        asked = getattr(policy, side) if policy else None
        return (asked.mode if asked else self.settings.mode) == "block"

    def _job(self, request: ChatRequest, name: str, ids: list[int], most: int, place: int) -> Job:
        temperature = self.temperature if request.temperature is None else request.temperature
        blocks, hold = self._blocks(request, "output"), self.settings.hold
        return Job(
            id=name,
            ids=ids,
            max_tokens=most,
            temperature=temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=request.seed or 0,
            sample=secrets.randbits(62) if request.seed is None else place,
            block=blocks,
            block_prompt=self._blocks(request, "input"),
            follow=bool(request.stream or request.stops) and not (blocks and hold == "all"),
            held=blocks and hold == "look",
        )

    def _with_refusal(self, call: Call, place: int, piece: Piece) -> Piece:
        """The last piece of a stopped answer, with the operator's text in place of what was withheld."""
        text = self.settings.refusal
        if piece.reason != "content_filter" or not text:
            return piece
        gap = "\n\n" if call.texts[place] + piece.text else ""
        return replace(piece, text=piece.text + gap + text)

    def _first(self, job: Job) -> None:
        job.first_token = time.perf_counter()
        self.metrics.first.observe(job.first_token - job.created)

    def _ended(self, call: Call, place: int, piece: Piece) -> None:
        """Count and log what became of a choice."""
        job = call.answers[place].job
        self.metrics.requests.labels(str(piece.reason)).inc()
        self.metrics.took.observe(time.perf_counter() - job.created)
        self.metrics.prompt_tokens.inc(len(job.ids) if not place else 0)
        self.metrics.tokens.inc(piece.tokens)
        for name, verdict in piece.verdicts.items():
            self.metrics.verdict(name, verdict.score, verdict.stopped_at)
        if self.log is not None:
            try:
                self.log.write(self._entry(call, place, piece), self._texts(call, place))
            except OSError:
                self.metrics.log_faults.inc()

    def _entry(self, call: Call, place: int, piece: Piece) -> dict[str, Any]:
        job = call.answers[place].job
        return {
            "time": round(time.time(), 3),
            "id": call.id,
            "choice": place,
            "model": self.model.name,
            "fingerprint": self._fingerprint,
            "prompt": prompt_key(call.turns),
            "prompt_tokens": len(job.ids),
            "tokens": piece.tokens,
            "temperature": job.temperature,
            "top_p": job.top_p,
            "mode": "block" if job.block else "score",
            "finish_reason": piece.reason,
            "stopped_at": piece.stopped_at,
            "guards": self._of_choice(piece),
        }

    @staticmethod
    def _texts(call: Call, place: int) -> dict[str, str]:
        return {"prompt_text": call.turns[-1]["content"], "text": call.texts[place]}

    def _choice(self, call: Call, place: int) -> Choice:
        end = call.ends[place]
        assert end.reason in ("stop", "length", "content_filter")
        message = AnswerMessage(content=call.texts[place])
        return Choice(index=place, message=message, finish_reason=end.reason, demur=self._facts(end))

    def _moderation(self, call: Call) -> ModerationAnswer:
        verdicts = [call.ends[place].verdicts for place in sorted(call.ends)]
        by_prompt = any(end.by_prompt for end in call.ends.values())
        scores = call.answers[0].job.prompt_scores
        return moderation_of(self.watched, verdicts, call.judged_by, scores, by_prompt)

    def _facts(self, piece: Piece) -> dict[str, Any]:
        return {"stopped_at": piece.stopped_at, "guards": self._of_choice(piece)}

    def _of_choice(self, piece: Piece) -> list[dict[str, Any]]:
        return numbers_of(self.watched, piece.verdicts)

    def _usage(self, call: Call) -> Usage:
        made = sum(piece.tokens for piece in call.ends.values())
        return Usage(prompt_tokens=len(call.ids), completion_tokens=made, total_tokens=len(call.ids) + made)

    def _head(self, call: Call) -> dict[str, Any]:
        return {"id": call.id, "object": "chat.completion.chunk", "created": call.created, "model": self.name}

    def _chunk(
        self, call: Call, place: int, delta: dict[str, Any], reason: str | None = None, **more: Any
    ) -> dict[str, Any]:
        choice = {"index": place, "delta": delta, "finish_reason": reason, "logprobs": None, **more}
        return {**self._head(call), "choices": [choice]}
