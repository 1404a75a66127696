"""The engines of a server: which one runs a model, what they need of transformers, and looks on either."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fastapi.testclient import TestClient

import demur
from demur.errors import InputError
from demur.guards import DirectionGuard, StreamingGuard, states_of
from demur.serve import Settings, Watched
from demur.serve.engines.batches import Batches
from demur.serve.engines.choose import engine_for
from demur.serve.engines.continuous import Continuous
from demur.serve.engines.manager import PARTS, lacking
from serving import Served, app_of, chat, toy_prompts


def test_all_that_continuous_batching_needs_is_in_this_transformers() -> None:
    assert lacking() == ""
    assert isinstance(engine_for(demur.load("demur/tiny-ar"), [], Settings())[0], Continuous)


@pytest.mark.parametrize(
    ("kind", "part"),
    [
        ("FIFOScheduler", None),
        ("FIFOScheduler", "block_new_requests"),
        ("ContinuousBatchingManager", "cancel_request"),
        ("ContinuousBatchingManager", "_generation_thread"),
        ("ContinuousBatchingIOs", "requests_in_batch"),
        ("FutureRequestState", "has_new_token"),
        ("ContinuousBatchingConfig", "scheduler_type"),
    ],
)
def test_a_part_that_is_gone_is_named_and_the_other_engine_serves(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str, part: str | None
) -> None:
    module = next(module for module, name in PARTS if name == kind)
    if part is None:
        monkeypatch.delattr(f"{module}.{kind}")
    else:
        left = {name: None for name in PARTS[module, kind] if name != part}
        monkeypatch.setattr(f"{module}.{kind}", type(kind, (), left))
    named = f"{module}.{kind}" + (f".{part}" if part else "")
    model = demur.load("demur/tiny-ar")
    assert isinstance(engine_for(model, [], Settings())[0], Batches)
    assert f"has no {named};" in caplog.text
    with pytest.raises(InputError, match=f"has no {named}, which continuous batching needs; give --engine batches"):
        engine_for(model, [], Settings(engine="continuous"))


@pytest.fixture(scope="module")
def on_looks() -> Served:
    """Guards over whole answers of 24 tokens, at looks with a window."""
    model = demur.load("demur/tiny-ar", device="cpu")
    prompts = [*toy_prompts("test_attacks", 8), *toy_prompts("test_harmless", 8)]
    sets = [*(toy_prompts(name, 12) for name in ("guard_train_harmless", "anchors_harmful")), prompts]
    train, harmful, recording = (
        demur.record(model, rows, steps=24, keep="looks", window=4, layers=("last",), progress=False) for rows in sets
    )
    looks = recording.looks
    direction = DirectionGuard(places=looks).fit(states_of(train, looks), harmful=states_of(harmful, looks))
    errors = direction.place_errors(states_of(recording, looks))
    guard = StreamingGuard(alpha=0.1, side="high").fit(direction.place_errors(states_of(train, looks)))
    guard.threshold_ = float(np.median(guard.errors(errors)))
    stops = direction.steps_of(guard.stops(errors), 24)
    return Served(model, [Watched("looks", direction, guard)], prompts, recording, stops, guard.step_scores(errors))


@pytest.mark.parametrize("engine", ["continuous", "batches"])
def test_looks_of_whole_answers_are_judged_as_on_the_recording(on_looks: Served, engine: str) -> None:
    policy = {"policy": {"input": {"mode": "score"}, "output": {"mode": "score"}}}
    bodies = [chat(one, moderation=policy) for one in on_looks.prompts]
    with TestClient(app_of(on_looks, engine=engine)) as client, ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda body: client.post("/v1/chat/completions", json=body), bodies))
    assert {bool(stop) for stop in on_looks.stops} == {True, False}
    for answer, stop, scores in zip(answers, on_looks.stops, on_looks.scores, strict=True):
        said = answer.json()["choices"][0]["demur"]
        assert said["stopped_at"] == stop
        seen = said["guards"][0]
        assert seen["score"] == pytest.approx(scores[seen["looks"] - 1], rel=1e-3, abs=1e-3)
