"""A kill or a fault of the disk at any file operation of the commands that need no model.

Afterwards each file is the old one or the new one, files that belong together are of one kind, and the same command
ends with the bytes of a run without a fault. `DEMUR_CRASH_STEP=1` (`make test-faults`) tries every operation, the
ordinary run a sample of them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from crash import every_crash
from disk import FAULTS, Fault, failing, largest
from jobs import Job, Ran, every_job
from threadpoolctl import threadpool_limits

from demur.errors import InputError
from demur.files.locking import locked
from demur.judges.cache import VerdictCache

STEP = int(os.environ.get("DEMUR_CRASH_STEP", "23"))
Note = Callable[[str, int], None]
JOBS = ("anchors", "signal", "guard fit", "guard score", "view", "compare", "save a study", "save a hardening")


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Job]]:
    with threadpool_limits(1):  # a fork after use with more would hang
        yield {job.name: job for job in every_job(tmp_path_factory.mktemp("inputs"))}


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="module")
def benches(jobs: dict[str, Job], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bench]:
    return cache(lambda name: Bench(jobs[name], tmp_path_factory.mktemp("bench")))


def step_of(job: Job) -> int:
    """Every how many operations one is disturbed: more seldom where many files are written."""
    return STEP if job.together else max(1, STEP // 2)


class Bench:
    """One job with what it leaves from old and from new inputs."""

    def __init__(self, job: Job, tmp_path: Path) -> None:
        self.job, self.old_folder = job, tmp_path / "old"
        self.old, self.names = self._whole(self.old_folder, "old")
        self.new, names = self._whole(tmp_path / "new", "new")
        assert self.names == names == set(job.files)
        assert all(self.old[name] != self.new[name] for name in job.files if name not in job.together + job.shared)
        assert self.old != self.new

    def prepare(self, folder: Path) -> None:
        """The state before: old files, and one of somebody else's."""
        shutil.copytree(self.old_folder, folder)
        (folder / "mine.tmp").write_text("mine")

    def run(self, folder: Path) -> Ran:
        return self.job.run(folder, "new")

    def check_old_or_new(self, folder: Path) -> str:
        there = self.job.content(folder)
        for name, content in there.items():
            assert content in (self.old[name], self.new[name]), name
        whole = [all(there[name] == kind[name] for name in self.job.together) for kind in (self.old, self.new)]
        assert any(whole)
        return "old" if there == self.old else "new" if there == self.new else "between"

    def check_goes_on(self, folder: Path) -> None:
        assert self.run(folder) == Ran(0, "")
        assert self.job.content(folder) == self.new
        assert {path.name for path in folder.iterdir()} == {*self.names, "mine.tmp"}
        assert (folder / "mine.tmp").read_text() == "mine"

    def _whole(self, folder: Path, variant: str) -> tuple[dict[str, bytes | None], set[str]]:
        folder.mkdir()
        assert self.job.run(folder, variant) == Ran(0, "")
        return self.job.content(folder), {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", JOBS)
def test_a_kill_leaves_the_old_or_the_new(
    tmp_path: Path, benches: Callable[[str], Bench], name: str, record_property: Note
) -> None:
    bench, seen = benches(name), set()

    def run(folder: Path) -> None:
        assert bench.run(folder).code == 0

    def check(folder: Path) -> None:
        seen.add(bench.check_old_or_new(folder))
        bench.check_goes_on(folder)

    kills = every_crash(tmp_path, bench.prepare, run, check, step_of(bench.job))
    assert kills >= 8 // step_of(bench.job) + 1
    assert "old" in seen
    record_property("kills", kills)


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("name", JOBS)
def test_a_fault_of_the_disk_is_one_line(
    tmp_path: Path, benches: Callable[[str], Bench], name: str, fault: Fault, record_property: Note
) -> None:
    bench, step = benches(name), step_of(benches(name).job)
    place, refused, count = FAULTS.index(fault) % step, 0, 0
    while True:
        folder = tmp_path / str(place)
        bench.prepare(folder)
        with failing(place, fault) as struck:
            ran = bench.run(folder)
        if not struck:
            break
        assert ran.code in (0, 2)
        assert ran.is_one_line if ran.code else not ran.stderr
        bench.check_old_or_new(folder)
        assert ran.code or bench.job.content(folder) == bench.new
        bench.check_goes_on(folder)
        count, refused, place = count + 1, refused + (ran.code == 2), place + step
    assert refused
    record_property("faults", count)
    record_property("refused", refused)


@pytest.mark.parametrize("name", JOBS)
def test_files_that_may_not_grow_are_one_line(
    tmp_path: Path, benches: Callable[[str], Bench], name: str, record_property: Note
) -> None:
    bench = benches(name)
    bench.prepare(tmp_path / "at")
    with largest(max(len(content or b"") for content in bench.new.values()) // 2):
        ran = bench.run(tmp_path / "at")
    assert (ran.code, ran.is_one_line) == (2, True), ran.stderr
    bench.check_old_or_new(tmp_path / "at")
    bench.check_goes_on(tmp_path / "at")
    record_property("limits", 1)


def test_verdicts_are_kept_after_a_line_that_was_cut_short(tmp_path: Path) -> None:
    first, cut, last = ("a" * 64, "b" * 64, "c" * 64)
    cache = VerdictCache(tmp_path / "v.jsonl")
    cache.add({first: True})
    with largest((tmp_path / "v.jsonl").stat().st_size + 20), pytest.raises(InputError, match="cannot be written"):
        cache.add({cut: True})
    cache.add({last: False})
    assert VerdictCache(tmp_path / "v.jsonl").verdicts == {first: True, last: False}


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
def test_a_disk_without_locks_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(InputError, match="cannot be written or locked") as raised, locked(tmp_path / "r"):
        raise AssertionError("the folder was used without a lock")
    assert "\n" not in str(raised.value)
    monkeypatch.undo()
    with locked(tmp_path / "r"):
        pass
