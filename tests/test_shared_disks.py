"""Disks of clusters: one without locks is said, one that goes away loses nothing, a slow one is waited for."""

import errno
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import filelock
import numpy as np
import pytest

import demur
from demur import InputError, Recording, record
from demur.files import writing
from demur.recording.generate import batches

PROMPTS = [f"tell me about tea, {n} times" for n in range(12)]
SETTINGS: dict[str, Any] = {"steps": 2, "batch_size": 2}


@pytest.fixture(scope="module")
def model() -> demur.Model:
    return demur.load("demur/tiny-ar", device="cpu")


@pytest.mark.parametrize(
    "fault", [OSError(errno.ENOLCK, "No locks available"), OSError(errno.ENOTSUP, "Unsupported"), NotImplementedError()]
)
def test_a_disk_without_locks_is_said_before_anything_is_recorded(
    model: demur.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with pytest.raises(InputError, match=r"cannot be written or locked \(.*network disks"):
        record(model, PROMPTS, **SETTINGS, out=tmp_path / "r")
    assert not (tmp_path / "r" / "manifest.json").exists()


class Disturbed:
    """An engine that does something to the disk before its third batch."""

    versions: ClassVar[dict[str, str]] = {}

    def __init__(self, disturb: Any) -> None:
        self.disturb = disturb

    def require(self, model: Any, sampler: Any) -> None:
        pass

    def batches(self, *arguments: Any) -> Iterator[Any]:
        for count, batch in enumerate(batches(*arguments)):
            if count == 2:
                self.disturb()
            yield batch


def test_a_folder_that_goes_away_on_the_way_is_an_error_and_never_half_a_recording(
    model: demur.Model, tmp_path: Path
) -> None:
    out = tmp_path / "r"
    with pytest.raises(InputError, match="manifest"):
        record(model, PROMPTS, **SETTINGS, out=out, engine=Disturbed(lambda: shutil.rmtree(out)))
    with pytest.raises(InputError):
        Recording(out)


def test_a_disk_that_comes_back_goes_on_where_it_was(model: demur.Model, tmp_path: Path) -> None:
    out, away = tmp_path / "r", tmp_path / "away"
    whole = record(model, PROMPTS, **SETTINGS)

    def unmount() -> None:
        out.rename(away)
        out.write_text("nothing is mounted here")

    with pytest.raises(InputError):
        record(model, PROMPTS, **SETTINGS, out=out, engine=Disturbed(unmount))
    out.unlink()
    away.rename(out)
    assert len(list(out.glob("shards/*.parquet"))) == 2
    np.testing.assert_array_equal(record(model, PROMPTS, **SETTINGS, out=out).phi, whole.phi)


def test_a_slow_disk_is_waited_for(model: demur.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flush = writing.os.fsync

    def slowly(descriptor: int) -> None:
        time.sleep(0.02)
        flush(descriptor)

    whole = record(model, PROMPTS, **SETTINGS)
    monkeypatch.setattr(writing.os, "fsync", slowly)
    np.testing.assert_array_equal(record(model, PROMPTS, **SETTINGS, out=tmp_path / "r").phi, whole.phi)
