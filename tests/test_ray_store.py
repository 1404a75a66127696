"""Batches that workers put into a store: each whole or not at all, and the recording is that of one process.

The cluster is one of this process, so that no Ray is needed and `memory://` is an object store that all sides see;
`tests/engines/ray/test_store.py` has the processes.
"""

import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

import demur
from demur import InputError, Recording, record
from demur.cli import main
from demur.engines.ray import RayEngine
from demur.engines.ray.store import Names
from demur.engines.ray.worker import Task, Worker
from demur.recording.encoded import EncodedPrompts

PROMPTS = [f"tell me about {'tea and ' * (n % 6)}bread" for n in range(12)]
SETTINGS: dict[str, Any] = {"steps": 2, "batch_size": 2}
BATCHES = 6


@lru_cache
def _loaded(loading: str, expected: str) -> Worker:
    return Worker(pickle.loads(bytes.fromhex(loading)), pickle.loads(bytes.fromhex(expected)))


def loaded(loading: Any, expected: Any) -> Worker:
    """A worker of these arguments, the same for all tests, for loading takes longest."""
    return _loaded(pickle.dumps(loading).hex(), pickle.dumps(expected).hex())


class Here:
    """A cluster of this process: what is sent is pickled, and computed when its result is asked for.

    disturb : called with the number of the call, from 0, after the batch was computed.
    """

    threads, start_seconds = 1, 0.0

    def __init__(self, disturb: Callable[[int, Task], None] = lambda count, task: None) -> None:
        self.disturb, self.sent = disturb, list[Task]()

    def begin(self, kind: type, arguments: Sequence[Any], retries: int) -> list[Any]:
        return [SimpleNamespace(compute=SimpleNamespace(remote=self._sender(loaded(*arguments)))) for _ in range(2)]

    def _sender(self, worker: Worker) -> Callable[[Task], Any]:
        def send(task: Task) -> Callable[[], Any]:
            sent = pickle.loads(pickle.dumps(task))

            def compute() -> Any:
                self.sent.append(sent)
                answer = pickle.loads(pickle.dumps(worker.compute(sent)))
                self.disturb(len(self.sent) - 1, sent)
                return answer

            return compute

        return send

    def first_done(self, references: list[Any], timeout: float | None) -> Any:
        return references[-1]  # not the order of the plan

    def result(self, reference: Any, what: str) -> Any:
        return reference()

    def cancel(self, references: list[Any]) -> None: ...
    def end(self, workers: Sequence[Any]) -> None: ...
    def stop(self) -> None: ...


def engine_with(store: str, cluster: Here | None = None) -> RayEngine:
    engine = RayEngine(actors=2, store=store)
    engine._cluster = cluster or Here()  # type: ignore[assignment]
    return engine


@pytest.fixture(scope="module")
def model() -> demur.Model:
    return demur.load("demur/tiny-ar", device="cpu")


@pytest.fixture(scope="module")
def whole(model: demur.Model, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record(model, PROMPTS, **SETTINGS, out=tmp_path_factory.mktemp("whole") / "r")


@pytest.fixture(params=["memory", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "memory":
        yield f"memory://{tmp_path.name}/batches"
        MemoryFileSystem.store.clear()
    else:
        (tmp_path / "store").mkdir()
        yield str(tmp_path / "store")


def held(store: str) -> list[str]:
    filesystem, root = fsspec.core.url_to_fs(store)
    return sorted(filesystem.find(root))


def require_same(found: Recording, wanted: Recording) -> None:
    np.testing.assert_array_equal(found.phi, wanted.phi)
    pd.testing.assert_frame_equal(found.table.drop(columns="seconds"), wanted.table.drop(columns="seconds"))
    rows = np.concatenate([arrays["rows"] for arrays in found.shards()])
    assert sorted(rows.tolist()) == list(range(len(PROMPTS)))


class Stopped(Exception):
    """What stands for the end of a driver."""


def stopping_after(engine: RayEngine, count: int) -> Any:
    def some(*arguments: Any) -> Iterator[Any]:
        for number, batch in enumerate(engine.batches(*arguments)):
            yield batch
            if number + 1 == count:
                raise Stopped

    return SimpleNamespace(versions={}, require=engine.require, batches=some)


def test_rows_are_those_of_one_process_and_the_store_is_empty_afterwards(
    model: demur.Model, whole: Recording, store: str, tmp_path: Path
) -> None:
    cluster = Here()
    require_same(record(model, PROMPTS, **SETTINGS, engine=engine_with(store, cluster), out=tmp_path / "r"), whole)
    assert len(cluster.sent) == BATCHES and held(store) == []


@pytest.mark.parametrize("more", [{"keep": "looks"}, {"responses": [f"tea {n}" for n in range(12)]}])
def test_looks_and_forced_responses_go_through_the_store(
    model: demur.Model, tmp_path: Path, more: dict[str, Any]
) -> None:
    here = record(model, PROMPTS, **SETTINGS, **more, out=tmp_path / "here")
    there = record(
        model, PROMPTS, **SETTINGS, **more, engine=engine_with(f"memory://{tmp_path.name}"), out=tmp_path / "there"
    )
    pd.testing.assert_frame_equal(there.table.drop(columns="seconds"), here.table.drop(columns="seconds"))
    for one, other in zip(_sorted(here), _sorted(there), strict=True):
        np.testing.assert_array_equal(one, other)


def _sorted(recording: Recording) -> list[np.ndarray]:
    shards = list(recording.shards())
    order = np.argsort(np.concatenate([one["rows"] for one in shards]))
    return [np.concatenate([one[name] for one in shards])[order] for name in sorted(shards[0])]


def test_what_workers_put_there_outlives_the_driver(
    model: demur.Model, whole: Recording, store: str, tmp_path: Path
) -> None:
    first, finished = Here(), False

    def compute_all(count: int, task: Task) -> None:
        """Let the other workers finish what they were given, as they do while a driver dies."""
        nonlocal finished
        if not finished:
            finished = True
            for reference in list(waiting):
                reference()

    waiting: list[Any] = []
    first.first_done = lambda references, timeout: (waiting.extend(references[:-1]), references[-1])[1]  # type: ignore
    first.disturb = compute_all
    with pytest.raises(Stopped):
        record(model, PROMPTS, **SETTINGS, engine=stopping_after(engine_with(store, first), 1), out=tmp_path / "r")
    assert len(held(store)) == 4  # two ahead at each of two workers; one of them stands in the folder too
    second = Here()
    require_same(record(model, PROMPTS, **SETTINGS, engine=engine_with(store, second), out=tmp_path / "r"), whole)
    assert len(second.sent) == BATCHES - 4
    computed_twice = {task.name for task in first.sent} & {task.name for task in second.sent}
    assert not computed_twice


def test_no_worker_is_started_where_all_is_in_the_store(
    model: demur.Model, whole: Recording, store: str, tmp_path: Path
) -> None:
    copies = dict[str, bytes]()
    filesystem, _ = fsspec.core.url_to_fs(store)
    cluster = Here(lambda count, task: copies.update({held(store)[0]: filesystem.cat_file(held(store)[0])}))
    record(model, PROMPTS, **SETTINGS, engine=engine_with(store, cluster), out=tmp_path / "first")
    for path, content in copies.items():
        filesystem.pipe_file(path, content)
    again = Here()
    again.begin = None  # type: ignore[assignment,method-assign]
    require_same(record(model, PROMPTS, **SETTINGS, engine=engine_with(store, again), out=tmp_path / "r"), whole)
    assert len(copies) == BATCHES and held(store) == []


def cut(path: str, filesystem: Any) -> None:
    filesystem.pipe_file(path, filesystem.cat_file(path)[:-7])


def flipped(path: str, filesystem: Any) -> None:
    content = bytearray(filesystem.cat_file(path))
    content[len(content) // 2] ^= 1
    filesystem.pipe_file(path, bytes(content))


def emptied(path: str, filesystem: Any) -> None:
    filesystem.pipe_file(path, b"")


def gone(path: str, filesystem: Any) -> None:
    filesystem.rm_file(path)


@pytest.mark.parametrize("fault", [cut, flipped, emptied, gone])
def test_a_damaged_or_missing_object_is_computed_again(
    model: demur.Model, whole: Recording, store: str, tmp_path: Path, fault: Callable[[str, Any], None]
) -> None:
    filesystem, _ = fsspec.core.url_to_fs(store)
    cluster = Here(lambda count, task: fault(held(store)[0], filesystem) if count in (1, 3) else None)
    require_same(record(model, PROMPTS, **SETTINGS, engine=engine_with(store, cluster), out=tmp_path / "r"), whole)
    assert len(cluster.sent) == BATCHES + 2


def test_an_object_of_another_batch_under_the_name_is_computed_again(
    model: demur.Model, whole: Recording, store: str, tmp_path: Path
) -> None:
    filesystem, _ = fsspec.core.url_to_fs(store)
    kept = list[bytes]()

    def swap(count: int, task: Task) -> None:
        (path,) = held(store)
        kept.append(filesystem.cat_file(path))
        if count == 2:
            filesystem.pipe_file(path, kept[0])

    cluster = Here(swap)
    require_same(record(model, PROMPTS, **SETTINGS, engine=engine_with(store, cluster), out=tmp_path / "r"), whole)
    assert len(cluster.sent) == BATCHES + 1


def test_a_store_that_only_the_worker_sees_ends_the_job_with_one_line(
    model: demur.Model, store: str, tmp_path: Path
) -> None:
    filesystem, _ = fsspec.core.url_to_fs(store)
    cluster = Here(lambda count, task: gone(held(store)[0], filesystem))
    with pytest.raises(InputError, match=r"missing or damaged .*share"):
        record(model, PROMPTS, **SETTINGS, engine=engine_with(store, cluster), out=tmp_path / "r")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left|disk is full"),
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (RuntimeError("the endpoint is away"), "the endpoint is away"),
    ],
)
def test_a_store_that_refuses_in_the_middle_is_named_and_the_run_goes_on_later(
    model: demur.Model, whole: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    store, calls = f"memory://{tmp_path.name}", list[str]()
    put = MemoryFileSystem.pipe_file

    def refusing(self: Any, path: str, value: bytes, **more: Any) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise error
        put(self, path, value, **more)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refusing)
    with pytest.raises(InputError, match=rf"the worker on .*{store}/.* cannot be written \(.*({said})") as raised:
        record(model, PROMPTS, **SETTINGS, engine=engine_with(store), out=tmp_path / "r")
    assert "\n" not in str(raised.value)
    require_same(record(model, PROMPTS, **SETTINGS, engine=engine_with(store), out=tmp_path / "r"), whole)
    MemoryFileSystem.store.clear()


def test_a_folder_that_goes_away_in_the_middle_is_named(model: demur.Model, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    cluster = Here(lambda count, task: store.rename(tmp_path / "away") if count == 2 else None)  # type: ignore
    with pytest.raises(InputError, match=r"the worker on .*cannot be written \(No such file or directory\)"):
        record(model, PROMPTS, **SETTINGS, engine=engine_with(str(store), cluster), out=tmp_path / "r")
    assert not store.exists()  # a mount that is gone is not made anew below its place


def test_a_store_that_cannot_be_read_is_named(
    model: demur.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*arguments: Any, **more: Any) -> None:
        raise PermissionError(13, "Permission denied")

    store = tmp_path / "store"
    store.mkdir()
    for name in ("ls", "cat_file"):
        with monkeypatch.context() as patched:
            patched.setattr(LocalFileSystem, name, refusing)
            with pytest.raises(InputError, match=r"store.*cannot be read \(.*Permission denied"):
                record(model, PROMPTS, **SETTINGS, engine=engine_with(str(store)), out=tmp_path / name)


@pytest.mark.parametrize(
    ("store", "said"),
    [
        ("foo://bucket/x", "foo://bucket/x: .*Protocol not known: foo"),
        ("sftp://host/x", "sftp://host/x: .*paramiko"),
        ("", "the store is ''"),
        ("MISSING", "MISSING: there is no such folder; make it"),
    ],
)
def test_a_store_that_is_none_is_one_line_of_the_command(
    store: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "a", "prompt": "tell me about tea"}\n')
    place = str(tmp_path / store) if store == "MISSING" else store
    command = ["record", "demur/tiny-ar", str(prompts), "--out", str(tmp_path / "r"), "--engine", "ray"]
    monkeypatch.setattr("sys.argv", ["demur", *command, "--ray-store", place, "--device", "cpu", "-q"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert re.fullmatch(rf"(demur: )?(error: )?.*{said}.*\n", capsys.readouterr().err)
    assert not (tmp_path / "r").exists()


def test_names_are_of_the_content(model: demur.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever changes a batch changes its name; nothing else does."""

    def name(rows: Sequence[Sequence[int]], steps: int = 4, layers: Sequence[int] = (4,), eos: int = 0) -> str:
        encoded = EncodedPrompts((one, []) for one in rows)
        monkeypatch.setattr(model, "eos_token_ids", [eos])
        return Names(model, model.default_sampler(steps=steps), layers, None).of(list(encoded))

    base = name([[1, 2, 3], [4]])
    assert base == name([[1, 2, 3], [4]]) and len(base) > 60
    others = [name([[1, 2], [3, 4]]), name([[4], [1, 2, 3]]), name([[1, 2, 3], [4]], steps=5)]
    others += [name([[1, 2, 3], [4]], layers=(3,)), name([[1, 2, 3], [4]], eos=1), name([[1, 2, 3]])]
    assert len({base, *others}) == 1 + len(others)
