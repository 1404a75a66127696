"""What a worker of a cluster proves before it computes; it needs no Ray."""

import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import demur
from demur import InputError
from demur.engines.ray.worker import Task, Worker, expected_of
from demur.recording.generate import batches, encode


@pytest.fixture(scope="module")
def model() -> demur.Model:
    return demur.load("demur/tiny-ar", device="cpu")


def test_a_worker_with_other_versions_is_refused_by_name(model: demur.Model) -> None:
    expected = expected_of(model, 1)
    older = replace(expected, versions={**expected.versions, "transformers": "4.0.0", "demur": "0.0.1"})
    fault = Worker(dict(model.loading or {}), older).ready()
    assert isinstance(fault, InputError)
    said = str(fault)
    assert f"the worker on {platform.node()} has other versions than the driver" in said
    assert "transformers" in said and "against 4.0.0" in said and "against 0.0.1" in said and "torch" not in said


def test_a_worker_that_loads_other_weights_or_none_is_refused_by_name(model: demur.Model, tmp_path: Path) -> None:
    expected = expected_of(model, 1)
    fault = Worker(dict(model.loading or {}), replace(expected, fingerprint="0" * 64)).ready()
    assert isinstance(fault, InputError) and f"the worker on {platform.node()} loaded another" in str(fault)
    missing = {**(model.loading or {}), "name_or_path": str(tmp_path / "gone")}
    worker = Worker(missing, expected)
    assert str(worker.ready()).startswith(f"the worker on {platform.node()}: {tmp_path / 'gone'}")
    encoded = encode(model, demur.read_prompts("demur/toy/test_harmless")[:2], model.default_sampler(steps=2))
    refused = worker.compute(Task(encoded, model.default_sampler(steps=2), [4], None, {0: "a", 1: "b"}))
    assert refused is worker.ready()  # it answers every batch with its fault, and computes nothing


def test_a_proven_worker_computes_what_the_driver_would(model: demur.Model) -> None:
    sampler = model.default_sampler(steps=2)
    encoded = encode(model, demur.read_prompts("demur/toy/test_harmless")[:2], sampler)
    worker = Worker(dict(model.loading or {}), expected_of(model, 1))
    assert worker.ready() is None
    batch = worker.compute(Task(encoded, sampler, [model.layer_count], None, {0: "a", 1: "b"}))
    assert not isinstance(batch, InputError)
    (here,) = batches(model, encoded, sampler, [model.layer_count], 2, ["a", "b"])
    np.testing.assert_array_equal(batch.phi, here.phi)
    np.testing.assert_array_equal(batch.tokens, here.tokens)
