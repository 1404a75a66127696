"""The application: a path each, faults as OpenAI's clients read them, and the engine's life.

In: a model, its guards and settings. Out: an ASGI application that any server runs; `run` runs it on uvicorn.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import demur
from demur.models import Model
from demur.models.parallel import require_one_process
from demur.serve.chat import Chat
from demur.serve.engines.choose import engine_for
from demur.serve.faults import Fault
from demur.serve.gate import Gate
from demur.serve.guards import Watched
from demur.serve.litellm import litellm_router
from demur.serve.schema import ChatAnswer, ChatRequest, ErrorAnswer, ModelCard, ModelList
from demur.serve.settings import Settings
from demur.serve.streaming import Events, while_connected
from demur.serve.verdict_log import VerdictLog

FAULTS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer} for status in (400, 401, 404, 405, 408, 413, 429, 500, 503, 504)
}


def make_app(
    model: Model,
    watched: Sequence[Watched],
    settings: Settings | None = None,
    *,
    keys: Iterable[str] = (),
    name: str | None = None,
    log: Path | None = None,
    log_text: bool = False,
) -> FastAPI:
    """The application that serves `model` under the guards `watched`.

    keys : API keys, one of which a request must carry; none for a server without. name : what clients call the model.
    log : file of verdicts. Raises `ProvenanceError` where guards and model do not belong together, `InputError` for
    settings that cannot hold.
    """
    require_one_process(model, "the server")
    settings = settings or Settings()
    engine, longest, temperature = engine_for(model, watched, settings)
    written = VerdictLog(log, with_text=log_text) if log is not None else None
    chat = Chat(model, engine, watched, settings, longest=longest, temperature=temperature, name=name, log=written)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        import asyncio

        engine.start(asyncio.get_running_loop())
        if written is not None:
            written.write(
                {"started": int(time.time()), "model": model.name, "guards": [one.facts() for one in watched]}
            )
        app.state.ready = True
        try:
            yield
        finally:
            app.state.ready = False
            await asyncio.to_thread(engine.stop)
            if written is not None:
                written.close()

    app = FastAPI(title="demur serve", version=demur.__version__, lifespan=life, responses=FAULTS)
    app.state.ready, app.state.chat = False, chat
    _add_faults(app, chat)
    _add_paths(app, chat)
    if watched:
        app.include_router(litellm_router(model, watched))
    app.add_middleware(Gate, settings=settings, keys=tuple(keys))
    return app


def _add_paths(app: FastAPI, chat: Chat) -> None:
    started = int(time.time())

    @app.post("/v1/chat/completions", response_model=ChatAnswer, tags=["chat"])
    async def chat_completions(body: ChatRequest, request: Request) -> Any:
        """Answer a conversation; with `stream` as server-sent events."""
        call = await chat.begin(body)
        try:
            if not body.stream:
                answer = await while_connected(request, chat.whole(call), chat.settings.timeout)
                return JSONResponse(answer.model_dump())
            chunks = chat.events(call)
            # The status is known once there is something to show: a blocked prompt is no stream.
            first = await while_connected(request, anext(chunks), chat.settings.timeout)
            return Events(first, chunks, chat.settings.timeout)
        except BaseException:
            chat.end(call)  # a task that was cancelled before it began frees nothing itself
            raise

    @app.get("/v1/models", tags=["models"])
    async def models() -> ModelList:
        """The model that is served, and its guards."""
        return ModelList(data=[card()])

    @app.get("/v1/models/{name:path}", tags=["models"])
    async def one_model(name: str) -> ModelCard:
        if name != chat.name:
            raise Fault(404, f"the model {name!a:.200} is not served here", param="model", code="model_not_found")
        return card()

    def card() -> ModelCard:
        guards = [one.facts() for one in chat.watched]
        return ModelCard(id=chat.name, created=started, family=chat.model.family, guards=guards)

    @app.get("/health", tags=["state"])
    async def health() -> dict[str, str]:
        """Whether the server works at all; 503 once its engine has ended."""
        if app.state.ready and not chat.engine.healthy:
            raise Fault(503, "the engine has ended; start the server again", code="engine_down")
        return {"status": "ok"}

    @app.get("/ready", tags=["state"])
    async def ready() -> dict[str, str]:
        """Whether the server takes requests now."""
        if not (app.state.ready and chat.engine.healthy):
            raise Fault(503, "the server is starting or stopping", code="not_ready")
        return {"status": "ready"}

    @app.get("/metrics", tags=["state"], response_class=Response)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(chat.metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_faults(app: FastAPI, chat: Chat) -> None:
    @app.exception_handler(Fault)
    async def fault(request: Request, error: Fault) -> Response:
        chat.metrics.refused.labels(str(error.status)).inc()
        return error.response()

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        chat.metrics.refused.labels("400").inc()
        first = error.errors()[0]
        place = ".".join(str(one) for one in first["loc"] if one != "body") or None
        return Fault(400, f"{place or 'the body'}: {first['msg']}", param=place).response()

    @app.exception_handler(HTTPException)
    async def other(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        return Fault(error.status_code, str(error.detail), headers=headers).response()

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)
