"""Small shards are joined into larger ones, and a kill at any file operation loses and doubles nothing."""

import os
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import demur
from demur import InputError, Recording, merge, record
from demur.recording import compaction
from demur.recording import folder as files

sys.path.append(str(Path(__file__).parent / "faults"))
from crash import every_crash

PROMPTS = [f"tell me about {'tea and ' * (n % 3)}bread" for n in range(9)]
STEP = int(os.environ.get("DEMUR_CRASH_STEP", "83"))


@pytest.fixture(scope="module")
def model() -> demur.Model:
    torch.set_num_threads(1)  # a fork after use with more would hang
    return demur.load("demur/tiny-ar", device="cpu")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Join four shards as soon as there are four, and at the end what is more than one."""
    monkeypatch.setattr(compaction, "MOST_LOOSE", 4)
    monkeypatch.setattr(compaction, "FEWEST", 1)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def recorded(model: demur.Model, folder: Path, **more: object) -> Recording:
    return record(model, PROMPTS, steps=3, batch_size=1, out=folder, **more)  # type: ignore[arg-type]


def by_row(recording: Recording) -> dict[str, bytes]:
    shards = list(recording.shards())
    order = np.argsort(np.concatenate([one["rows"] for one in shards]))
    found = {name: np.concatenate([one[name] for one in shards])[order].tobytes() for name in shards[0]}
    return {**found, "table": recording.table.drop(columns="seconds").to_json().encode()}


def rows_that_count(folder: Path) -> list[int]:
    return [row for number in compaction.counting(folder) for row in files.read_shard_table(folder, number)["row"]]


def test_joined_shards_hold_the_same_rows(model: demur.Model, tmp_path: Path, few: None) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(compaction, "MOST_LOOSE", 100)
        patched.setattr(compaction, "FEWEST", 64)
        plain = recorded(model, tmp_path / "plain")
    joined = recorded(model, tmp_path / "joined")
    assert (len(files.shard_numbers(plain.path)), files.shard_numbers(joined.path)) == (9, [4, 9, 10])
    assert by_row(joined) == by_row(plain)
    assert [joined.steps_text(row) for row in range(9)] == [plain.steps_text(row) for row in range(9)]
    pd.testing.assert_frame_equal(Recording(joined.path).table, joined.table)


def test_large_shards_are_left_alone_and_small_ones_joined_by_size(
    model: demur.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = next((recorded(model, tmp_path / "plain").path / "shards").glob("*.safetensors")).stat().st_size
    monkeypatch.setattr(compaction, "SHARD_BYTES", size * 5)
    monkeypatch.setattr(compaction, "FEWEST", 1)
    assert len(files.shard_numbers(recorded(model, tmp_path / "joined").path)) == 2
    monkeypatch.setattr(compaction, "SHARD_BYTES", size * 3)
    assert len(files.shard_numbers(recorded(model, tmp_path / "large").path)) == 9


def test_a_kill_at_any_moment_of_joining_loses_and_doubles_nothing(
    model: demur.Model, tmp_path: Path, few: None
) -> None:
    wanted = by_row(recorded(model, tmp_path / "whole"))

    def check(folder: Path) -> None:
        if (folder / "manifest.json").is_file():
            with suppress(InputError):
                assert len(Recording(folder)) == len(PROMPTS)
            assert len(counted := rows_that_count(folder)) == len(set(counted))
        assert by_row(recorded(model, folder)) == wanted
        names = {path.stem for path in (folder / "shards").iterdir()}
        assert {int(name) for name in names} == set(files.shard_numbers(folder))

    assert every_crash(tmp_path, lambda folder: None, lambda folder: recorded(model, folder), check, STEP) > 3


def test_parts_with_joined_shards_merge(model: demur.Model, tmp_path: Path, few: None) -> None:
    for index in (1, 2):
        recorded(model, tmp_path / str(index), part=(index, 2))
    merged = merge([tmp_path / "1", tmp_path / "2"], tmp_path / "m")
    assert by_row(merged) == by_row(recorded(model, tmp_path / "whole"))
