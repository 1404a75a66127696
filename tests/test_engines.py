"""Engines behind `record`, without Ray: what a worker proves and computes, and what is refused at once."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import demur
from demur import InputError, record
from demur.cli import app
from demur.engines.ray import RayEngine
from demur.engines.ray import cluster as cluster_module
from demur.engines.ray.worker import Task, Worker, expected_of, versions_here
from demur.models import from_network
from demur.recording import folder as files
from demur.recording.asking import ModelAsker
from demur.recording.encoded import Plan
from demur.recording.generate import Batch, batches, encode

PROMPTS = ["tell me about tea", "how do i make bread", "explain rain to me", "tell me about tea"]


@pytest.fixture(scope="module")
def model() -> demur.Model:
    return demur.load("demur/tiny-ar", device="cpu")


@pytest.fixture(scope="module")
def worker(model: demur.Model) -> Worker:
    return Worker(dict(model.loading or {}), expected_of(model, torch.get_num_threads()))


class Counting:
    """An engine that computes here, in another order, and counts."""

    def __init__(self) -> None:
        self.calls = 0
        self.versions: dict[str, str] = {}

    def require(self, model: Any, sampler: Any) -> None:
        pass

    def batches(self, *arguments: Any) -> Iterator[Batch]:
        self.calls += 1
        yield from reversed(list(batches(*arguments)))


def tasks_of(model: demur.Model, sampler: Any, texts: Sequence[str]) -> list[Task]:
    encoded = encode(model, [demur.Prompt(str(row), text) for row, text in enumerate(texts)], sampler)
    layers = [model.layer_count]
    return [Task(one, sampler, layers, None, {row.row: texts[row.row] for row in one}) for one in Plan(encoded, 3)]


def test_a_worker_computes_what_the_driver_would(model: demur.Model, worker: Worker) -> None:
    sampler = demur.samplers.Autoregressive(steps=4, temperature=1.0)
    wanted = record(model, PROMPTS, sampler, batch_size=3)
    assert worker.ready() is None
    for task in tasks_of(model, sampler, PROMPTS):
        found = worker.compute(task)
        assert isinstance(found, Batch)
        np.testing.assert_array_equal(found.phi, wanted.phi[found.rows])


def test_a_worker_answers_with_the_error_of_a_bad_input(model: demur.Model) -> None:
    broken = Worker(dict(model.loading or {}), expected_of(model, torch.get_num_threads()))
    assert broken._model is not None
    broken._model.network.lm_head.weight.data[:] = float("nan")
    broken._model.network.model.norm.weight.data[:] = float("nan")
    (task,) = tasks_of(model, demur.samplers.Autoregressive(steps=2), PROMPTS[:1])
    fault = broken.compute(task)
    assert isinstance(fault, InputError) and "prompt 'tell me about tea', step 1" in str(fault)


def test_a_worker_with_another_model_is_refused(model: demur.Model) -> None:
    expected = replace(expected_of(model, 1), fingerprint="0" * 64)
    worker = Worker(dict(model.loading or {}), expected)
    assert "loaded another demur/tiny-ar" in str(worker.ready())
    (task,) = tasks_of(model, demur.samplers.Autoregressive(steps=2), PROMPTS[:1])
    assert isinstance(worker.compute(task), InputError)


def test_a_worker_with_other_versions_is_refused_before_it_loads(model: demur.Model) -> None:
    expected = replace(expected_of(model, 1), versions={**versions_here(), "torch": "0.0"})
    worker = Worker({"name_or_path": "/no/such/folder"}, expected)
    assert "other versions than the driver (torch" in str(worker.ready())


def test_a_worker_that_does_not_find_the_model_says_where(model: demur.Model) -> None:
    worker = Worker({"name_or_path": "/no/such/folder"}, expected_of(model, 1))
    assert "the worker on" in str(worker.ready()) and "/no/such/folder" in str(worker.ready())


def test_what_a_model_was_loaded_by_makes_it_again_from_anywhere(
    toy_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(toy_folder.parent)
    model = demur.load(toy_folder.name, device="cpu", dtype="bfloat16", system=None)
    monkeypatch.chdir(tmp_path)
    assert model.loading is not None
    again = demur.load(**model.loading, device="cpu")
    assert (again.fingerprint, again.dtype) == (model.fingerprint, torch.bfloat16)


def test_record_and_a_judge_generate_with_the_engine_they_are_given(model: demur.Model, tmp_path: Path) -> None:
    engine = Counting()
    found = record(model, PROMPTS, steps=3, batch_size=1, engine=engine, out=tmp_path / "r")
    np.testing.assert_array_equal(found.phi, record(model, PROMPTS, steps=3, batch_size=1).phi)
    assert (engine.calls, len(files.shard_numbers(tmp_path / "r"))) == (1, 4)
    asker = ModelAsker(model, engine=engine)
    assert asker(PROMPTS) == ModelAsker(model)(PROMPTS) and engine.calls == 2


def test_a_network_in_memory_is_refused_before_anything_is_written(model: demur.Model, tmp_path: Path) -> None:
    made = from_network(model.network, model.tokenizer)
    with pytest.raises(InputError, match="is a network in memory, which workers cannot load"):
        record(made, PROMPTS, steps=2, engine=RayEngine(), out=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_without_ray_the_extra_is_named(model: demur.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'demur\[ray\]'"):
        record(model, PROMPTS, steps=2, engine=RayEngine())
    assert cluster_module.Cluster(None, None, None, 3).threads == 3


@pytest.mark.parametrize("options", [{"actors": 0}, {"threads": -1}, {"gpus": -0.5}, {"timeout": 0}], ids=str)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        RayEngine(**options)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--engine", "spark"], "--engine is 'spark'"), (["--ray-actors", "2"], "--ray-actors is for --engine ray")],
    ids=str,
)
def test_the_command_names_engines_that_are_none(arguments: list[str], named: str, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "tea"}\n')
    common = ["record", "demur/tiny-ar", str(prompts), "--out", str(tmp_path / "r")]
    ran = CliRunner().invoke(app, [*common, *arguments])
    assert isinstance(ran.exception, InputError) and named in str(ran.exception)
