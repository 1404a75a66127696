"""Recordings made by Ray workers are those of one process, whoever dies on the way.

Needs Ray, in an environment of its own: `make test-ray`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import demur
from demur import InputError, Recording, record
from demur.cli import app
from demur.engines.ray import RayEngine
from demur.recording import folder as files

PROMPTS = [f"tell me about {'tea and ' * (n % 6)}bread" for n in range(64)]
SETTINGS: dict[str, Any] = {"steps": 16, "batch_size": 4}


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    with RayEngine(actors=2) as made:
        yield made


def require_same(found: Recording, wanted: Recording) -> None:
    for name, values in _arrays(wanted).items():
        np.testing.assert_array_equal(_arrays(found)[name], values, err_msg=name)
    pd.testing.assert_frame_equal(found.table.drop(columns="seconds"), wanted.table.drop(columns="seconds"))
    assert found.manifest == wanted.manifest


def _arrays(recording: Recording) -> dict[str, np.ndarray]:
    shards = list(recording.shards())
    order = np.argsort(np.concatenate([one["rows"] for one in shards]))
    return {name: np.concatenate([one[name] for one in shards])[order] for name in shards[0]}


def workers() -> list[int]:
    """Process ids of Ray's workers that hold a model; they have the name of the class."""
    found = subprocess.run(["pgrep", "-f", "ray::Worker"], capture_output=True, text=True).stdout
    return [int(one) for one in found.split()]


def test_the_folder_is_that_of_one_process(
    model: demur.Model, engine: RayEngine, whole: Recording, tmp_path: Path
) -> None:
    require_same(record(model, PROMPTS, **SETTINGS, engine=engine, out=tmp_path / "r"), whole)


def test_workers_are_kept_from_one_recording_to_the_next(model: demur.Model, engine: RayEngine) -> None:
    record(model, PROMPTS[:8], **SETTINGS, engine=engine)
    before = workers()
    record(model, PROMPTS[:8], steps=3, engine=engine)
    assert workers() == before and len(before) == 2


def test_a_recording_of_one_process_is_gone_on_with_and_back(
    model: demur.Model, engine: RayEngine, whole: Recording, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    class Breaking:
        versions: ClassVar[dict[str, str]] = {}
        require = engine.require

        def batches(self, *arguments: Any) -> Iterator[Any]:
            for count, batch in enumerate(engine.batches(*arguments)):
                if count == 5:
                    raise Stop
                yield batch

    with pytest.raises(Stop):
        record(model, PROMPTS, **SETTINGS, engine=Breaking(), out=tmp_path / "r")  # type: ignore[arg-type]
    assert len(files.shard_numbers(tmp_path / "r")) == 5
    require_same(record(model, PROMPTS, **SETTINGS, out=tmp_path / "r"), whole)


def test_a_killed_worker_costs_its_batch_and_nothing_else(
    model: demur.Model, engine: RayEngine, whole: Recording, tmp_path: Path
) -> None:
    record(model, PROMPTS[:4], **SETTINGS, engine=engine)
    killed: list[int] = []

    class Killing:
        versions: ClassVar[dict[str, str]] = {}
        require = engine.require

        def batches(self, *arguments: Any) -> Iterator[Any]:
            for count, batch in enumerate(engine.batches(*arguments)):
                if count in (2, 6):
                    killed.append(pid := workers()[count % 2])
                    os.kill(pid, signal.SIGKILL)
                yield batch

    found = record(model, PROMPTS, **SETTINGS, engine=Killing(), out=tmp_path / "r")  # type: ignore[arg-type]
    assert len(killed) == 2
    require_same(found, whole)


def test_a_fault_of_the_input_is_the_same_one_line(model: demur.Model, engine: RayEngine, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"prompt .* \(row 1\)"):
        record(model, ["tea " * 5000], engine=engine, out=tmp_path / "r")


def test_a_worker_with_another_model_is_refused(model: demur.Model, tmp_path: Path) -> None:
    edited = demur.load("demur/tiny-ar", device="cpu")
    edited.network.lm_head.weight.data[0] += 1
    with RayEngine(actors=1) as engine, pytest.raises(InputError, match="loaded another demur/tiny-ar"):
        record(edited, PROMPTS[:4], **SETTINGS, engine=engine, out=tmp_path / "r")


def test_a_worker_that_hangs_is_started_anew(model: demur.Model, whole: Recording, tmp_path: Path) -> None:
    others = set(workers())  # of the engine that the other tests share
    with RayEngine(actors=2, timeout=15) as engine:
        record(model, PROMPTS[:4], **SETTINGS, engine=engine)
        stopped = next(one for one in workers() if one not in others)
        os.kill(stopped, signal.SIGSTOP)
        found = record(model, PROMPTS, **SETTINGS, engine=engine, out=tmp_path / "r")
        assert stopped not in workers()
    require_same(found, whole)


def test_a_killed_driver_resumes_and_leaves_no_cluster_behind(whole: Recording, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"id": "{row.id}", "prompt": "{row.prompt}"}}\n' for row in whole.table.itertuples()))
    out = tmp_path / "r"
    command = [sys.executable, "-m", "demur", "record", "demur/tiny-ar", str(prompts), "--out", str(out)]
    command += ["--steps", "16", "--batch-size", "4", "--engine", "ray", "--ray-actors", "1", "--device", "cpu"]
    child = subprocess.Popen(command, start_new_session=True)
    while child.poll() is None and len(list(out.glob("shards/*.parquet"))) < 3:
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    kept = len(files.shard_numbers(out))
    assert 3 <= kept < 16
    assert subprocess.run(command).returncode == 0
    np.testing.assert_array_equal(Recording(out).phi, whole.phi)
    deadline = time.monotonic() + 60
    while (left := _of_session(child.pid)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left


def _of_session(session: int) -> list[str]:
    return subprocess.run(["pgrep", "-s", str(session)], capture_output=True, text=True).stdout.split()


def test_the_commands_study_and_compare_on_workers(tmp_path: Path, toy_folder: Path, toy_prompts: Path) -> None:
    runner = CliRunner()
    common = [str(toy_folder), "--prompts", str(toy_prompts), "--steps", "8", "--no-check", "--device", "cpu", "-q"]
    for name, more in (("one", []), ("ray", ["--engine", "ray", "--ray-actors", "2"])):
        ran = runner.invoke(app, ["study", *common, "--out", str(tmp_path / name), *more])
        assert ran.exit_code == 0, ran.output
    left, right = (pd.read_parquet(tmp_path / name / "rates.parquet") for name in ("one", "ray"))
    pd.testing.assert_frame_equal(left, right)
    runs = [str(tmp_path / "one"), str(tmp_path / "ray")]
    judged = ["--judge", f"chat:{toy_folder}", "--engine", "ray", "--ray-actors", "1", "--device", "cpu"]
    ran = runner.invoke(app, ["compare", *runs, "--out", str(tmp_path / "compared"), *judged])
    assert ran.exit_code == 0, ran.output


def test_a_running_cluster_is_used_and_left_running(whole: Recording, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"id": "{row.id}", "prompt": "{row.prompt}"}}\n' for row in whole.table.itertuples()))
    started = (
        "from demur.engines.ray.cluster import Cluster; ray = Cluster(None, 1, 0, 1)._reached()"  # which is patient
    )
    script = f"{started}; print(ray.get_runtime_context().gcs_address, flush=True); input()"
    command = [sys.executable, "-m", "demur", "record", "demur/tiny-ar", str(prompts), "--steps", "16"]
    command += ["--batch-size", "4", "--engine", "ray", "--ray-actors", "1", "--device", "cpu"]
    cluster = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
    )
    assert cluster.stdout is not None
    address = cluster.stdout.readline().strip()
    for name in ("one", "two"):  # the second finds it running still
        done = subprocess.run(
            [*command, "--ray-address", address, "--out", str(tmp_path / name)],
            env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        )
        assert done.returncode == 0
        np.testing.assert_array_equal(Recording(tmp_path / name).phi, whole.phi)
    assert cluster.poll() is None
    cluster.communicate("\n", timeout=120)
    unreachable = subprocess.run(
        [*command, "--ray-address", address, "--out", str(tmp_path / "three")], capture_output=True
    )
    assert unreachable.returncode == 2 and b"Ray cannot be started or reached" in unreachable.stderr
