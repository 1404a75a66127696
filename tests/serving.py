"""A guarded server for tests: the bundled tiny models, a guard fitted in seconds, and recorded generations."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI

import demur
from demur.bundled import bundled_prompts
from demur.guards import DirectionGuard, StreamingGuard, states_of
from demur.models import Model
from demur.serve import Settings, Watched, make_app

PATIENCE = 600.0
"""Seconds that a client of a test waits: httpx2's own five pass on a machine that does other work."""
LOOKS = tuple((look + 1) / 8 for look in range(8))
SAMPLERS = {
    "demur/tiny-ar": {"steps": 32},
    "demur/tiny-diffusion": {"steps": 8, "response_length": 32, "block_length": 8},
}


def toy_prompts(name: str, count: int) -> list[str]:
    """Every so many-th prompt of a bundled set, `count` of them."""
    lines = bundled_prompts(f"demur/toy/{name}")[0].read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["prompt"] for line in lines[:: len(lines) // count][:count]]


@dataclass
class Served:
    """A model, what guards it, and prompts whose generations were recorded: each one's stop, and its whole text."""

    model: Model
    watched: list[Watched]
    prompts: list[str]
    recording: demur.Recording
    stops: np.ndarray
    scores: np.ndarray

    def until(self, row: int, step: int) -> str:
        """The text that was committed at a step, up to its first gap."""
        tokens = self.recording.steps_tokens(row)
        known = tokens.is_committed[step - 1]
        length = len(known) if known.all() else int(np.argmin(known))
        return self.model.decode(tokens.predicted[step - 1][:length].tolist())


@lru_cache
def served(name: str = "demur/tiny-ar", count: int = 24, device: str = "cpu", dtype: str = "float32") -> Served:
    model = demur.load(name, device=device, dtype=dtype)
    sampler = model.default_sampler(**SAMPLERS[name])

    def record(prompts: list[str]) -> demur.Recording:
        return demur.record(model, prompts, sampler, layers=("middle", "last"), batch_size=32, progress=False)

    train, held_out, harmful = (
        record(toy_prompts(kind, 20))
        for kind in ("guard_train_harmless", "guard_calibration_harmless", "anchors_harmful")
    )
    direction = DirectionGuard(places=LOOKS).fit(states_of(train, LOOKS), harmful=states_of(harmful, LOOKS))
    guard = StreamingGuard(alpha=0.1, side="high")
    guard.fit(
        direction.place_errors(direction.states(train)), calibration=direction.place_errors(direction.states(held_out))
    )
    prompts = toy_prompts("test_attacks", count * 2 // 3) + toy_prompts("test_harmless", count - count * 2 // 3)
    recording = record(prompts)
    errors = direction.place_errors(direction.states(recording))
    stops = direction.steps_of(guard.stops(errors), sampler.step_count)
    return Served(model, [Watched("direction", direction, guard)], prompts, recording, stops, guard.step_scores(errors))


def served_on_looks(device: str = "cpu", dtype: str = "float32") -> Served:
    """Guards over whole answers of 32 tokens, with the prompt's own state as look 0."""
    model = demur.load("demur/tiny-ar", device=device, dtype=dtype)
    sets = [("guard_train_harmless", 20), ("guard_calibration_harmless", 20), ("anchors_harmful", 20)]
    prompts = [*toy_prompts("test_attacks", 8), *toy_prompts("test_harmless", 8)]
    train, held_out, harmful, recording = (
        demur.record(model, rows, steps=32, keep="looks", window=16, batch_size=32, progress=False)
        for rows in (*(toy_prompts(*one) for one in sets), prompts)
    )
    looks = recording.looks
    direction = DirectionGuard(places=looks).fit(states_of(train, looks), harmful=states_of(harmful, looks))
    guard = StreamingGuard(alpha=0.1, side="high").fit(
        direction.place_errors(states_of(train, looks)), calibration=direction.place_errors(states_of(held_out, looks))
    )
    errors = direction.place_errors(states_of(recording, looks))
    stops = direction.steps_of(guard.stops(errors), 32)
    return Served(model, [Watched("looks", direction, guard)], prompts, recording, stops, guard.step_scores(errors))


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The application on uvicorn, on a port of this machine; its address."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        deadline = time.monotonic() + PATIENCE
        while not server.started and thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert server.started, "the server did not start"
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(30)


def app_of(one: Served, log: Path | None = None, keys: tuple[str, ...] = (), **settings: Any) -> FastAPI:
    return make_app(
        one.model, one.watched, Settings(**{"slots": 16, "max_prompt_tokens": 256, **settings}), keys=keys, log=log
    )


@contextlib.contextmanager
def changed(app: FastAPI, **settings: Any) -> Iterator[None]:
    """The application with other settings of how requests are answered."""
    answering = app.state.chat
    before = answering.settings
    answering.settings = replace(before, **settings)
    try:
        yield
    finally:
        answering.settings = before


def chat(prompt: str, model: str = "demur/tiny-ar", **more: Any) -> dict[str, Any]:
    """The body of a request."""
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **more}
