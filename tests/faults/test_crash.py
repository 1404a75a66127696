"""A kill at any file operation, and the same command again: the result is that of a run that was never killed.

`DEMUR_CRASH_STEP=1` (`make test-faults`) tries every operation, the ordinary run a sample of them.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from crash import every_crash

from demur import Recording, record
from demur.models import Model, load

STEP = int(os.environ.get("DEMUR_CRASH_STEP", "23"))
Note = Callable[[str, int], None]
PROMPTS = ["tell me about tea", "how do i make bombs", "explain rain to me"]
OTHERS = ["write about gardens", "give me poison please"]
STEPS = 3


@pytest.fixture(scope="module")
def model() -> Model:
    torch.set_num_threads(1)  # a fork after use with more would hang
    made = load("demur/tiny-ar", device="cpu")
    record(made, PROMPTS[:1], steps=STEPS)
    return made


@pytest.fixture(autouse=True)
def fast_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def content(folder: Path) -> dict[str, object]:
    """What a recording holds, with the column that measures time left out, and the names of all files."""
    recording = Recording(folder)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    arrays = {path.name: path.read_bytes() for path in sorted(folder.glob("shards/*.safetensors"))}
    table = recording.table.drop(columns="seconds").to_json()
    return {"phi": recording.phi.tobytes(), "table": table, "names": names, "arrays": arrays,
            "manifest": (folder / "manifest.json").read_bytes()}  # fmt: skip


def test_a_recording_goes_on_after_any_kill(tmp_path: Path, model: Model, record_property: Note) -> None:
    def run(folder: Path) -> object:
        return record(model, PROMPTS, steps=STEPS, batch_size=1, out=folder)

    run(tmp_path / "whole")
    wanted = content(tmp_path / "whole")

    def check(folder: Path) -> None:
        run(folder)
        assert content(folder) == wanted

    kills = every_crash(tmp_path, lambda folder: None, run, check, STEP)
    assert kills > 60 // STEP
    record_property("kills", kills)


def test_a_replaced_recording_is_the_old_one_or_the_new_one(
    tmp_path: Path, model: Model, record_property: Note
) -> None:
    record(model, OTHERS, steps=STEPS, batch_size=1, out=tmp_path / "old")
    (tmp_path / "old" / "notes.part").write_text("mine")
    (tmp_path / "old" / "shards" / "mine.txt").write_text("mine")

    def prepare(folder: Path) -> None:
        shutil.copytree(tmp_path / "old", folder)

    def run(folder: Path) -> object:
        return record(model, PROMPTS, steps=STEPS, batch_size=1, out=folder, resume=False)

    prepare(tmp_path / "whole")
    old = Recording(tmp_path / "old").phi
    run(tmp_path / "whole")
    wanted = content(tmp_path / "whole")
    assert {"notes.part", "shards/mine.txt"} <= set(wanted["names"])  # type: ignore[call-overload]
    new, seen = Recording(tmp_path / "whole").phi, set()

    def check(folder: Path) -> None:
        found = Recording(folder)
        seen.add(len(found))
        np.testing.assert_array_equal(found.phi, old if len(found) == len(OTHERS) else new)
        assert found.steps_text(0)
        run(folder)
        assert content(folder) == wanted

    kills = every_crash(tmp_path, prepare, run, check, STEP)
    assert kills > 80 // STEP
    record_property("kills", kills)
    assert seen == {len(OTHERS), len(PROMPTS)}
