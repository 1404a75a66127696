"""Ray workers that put their batches into a folder that all share: the rows of one process, whoever dies on the way."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import demur
from demur import Recording, record
from demur.engines.ray import RayEngine
from demur.recording import folder as files

PROMPTS = [f"tell me about {'tea and ' * (n % 6)}bread, {n} times" for n in range(96)]
SETTINGS: dict[str, Any] = {"steps": 8, "batch_size": 4}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def require_same(found: Recording, wanted: Recording) -> None:
    np.testing.assert_array_equal(found.phi, wanted.phi)
    pd.testing.assert_frame_equal(found.table.drop(columns="seconds"), wanted.table.drop(columns="seconds"))
    rows = np.concatenate([arrays["rows"] for arrays in found.shards()])
    assert sorted(rows.tolist()) == list(range(len(PROMPTS)))


def workers() -> list[int]:
    found = subprocess.run(["pgrep", "-f", "ray::Worker"], capture_output=True, text=True).stdout
    return [int(one) for one in found.split()]


def test_workers_killed_and_objects_damaged_cost_their_batches_alone(
    model: demur.Model, whole: Recording, store: Path, tmp_path: Path
) -> None:
    damaged, killed = list[str](), list[int]()
    with RayEngine(actors=2, store=str(store)) as engine:

        def waiting() -> list[Path]:
            """What is in the store, once there is more than the batch in hand: workers go on meanwhile."""
            for _ in range(600):
                if len(found := list(store.glob("*.safetensors"))) > 1:
                    return found
                time.sleep(0.05)
            raise AssertionError("the workers put nothing into the store")

        def disturbed(*arguments: Any) -> Iterator[Any]:
            for count, batch in enumerate(engine.batches(*arguments)):
                if count in (3, 9):
                    killed.append(pid := workers()[0])
                    os.kill(pid, signal.SIGKILL)
                elif count == 6:
                    for one in waiting():  # the batch in hand was read; the others have to be computed again
                        one.write_bytes(one.read_bytes()[:-9])
                        damaged.append(one.name)
                yield batch

        disturbing = SimpleNamespace(versions={}, require=engine.require, batches=disturbed)
        found = record(model, PROMPTS, **SETTINGS, engine=disturbing, out=tmp_path / "r")
    require_same(found, whole)
    assert len(killed) == 2 and len(damaged) > 1
    assert list(store.iterdir()) == []


def test_a_killed_driver_goes_on_with_what_is_in_the_store(whole: Recording, store: Path, tmp_path: Path) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "r"
    prompts.write_text("".join(f'{{"id": "{row.id}", "prompt": "{row.prompt}"}}\n' for row in whole.table.itertuples()))
    command = [sys.executable, "-m", "demur", "record", "demur/tiny-ar", str(prompts), "--out", str(out), "-q"]
    command += ["--steps", "8", "--batch-size", "4", "--device", "cpu", "--engine", "ray", "--ray-actors", "2"]
    command += ["--ray-store", os.path.relpath(store)]  # of the driver: a worker may stand elsewhere
    child = subprocess.Popen(command, start_new_session=True)
    while child.poll() is None and len(list(out.glob("shards/*.parquet"))) < 3:
        time.sleep(0.005)
    child.send_signal(signal.SIGSTOP)  # the workers finish what they have
    time.sleep(3)
    waiting = len(list(store.glob("*.safetensors")))
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert 3 <= len(files.shard_numbers(out)) < 24 and waiting
    assert subprocess.run(command).returncode == 0
    require_same(Recording(out), whole)
    assert list(store.iterdir()) == []


def test_a_store_that_each_process_has_for_itself_ends_the_command_with_one_line(store: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "a", "prompt": "tell me about tea"}\n')
    command = [sys.executable, "-m", "demur", "record", "demur/tiny-ar", str(prompts), "--out", str(tmp_path / "r")]
    command += ["--steps", "2", "--device", "cpu", "-q", "--engine", "ray", "--ray-actors", "1"]
    ran = subprocess.run([*command, "--ray-store", "memory://nowhere"], capture_output=True, text=True)
    assert ran.returncode == 2 and "Traceback" not in ran.stderr
    assert "memory://nowhere/" in ran.stderr and "give a store that the driver and all workers share" in ran.stderr
