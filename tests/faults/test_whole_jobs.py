"""A whole study under limits of the system and kills, and the same command again: the numbers of one never disturbed.

`DEMUR_CRASH_STEP=1` (`make test-faults`) kills it at every eighth file operation too, the ordinary run at three.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from crash import MOMENTS, dies_at, operations_of
from disk import few_files, largest
from jobs import Ran, demur
from safetensors.numpy import load_file
from threadpoolctl import threadpool_limits

import demur.report.parts.embed as embedding
import demur.report.parts.figures as figures
import demur.studies.study.detectors as detectors
from demur.bundled import bundled_prompts
from demur.guards import SRIGuard

STEP = int(os.environ.get("DEMUR_CRASH_STEP", "23"))
Note = Callable[[str, int], None]
ROWS = {"anchors_harmless": 8, "anchors_harmful": 12, "guard_train_harmless": 20, "guard_calibration_harmless": 20}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    torch.set_num_threads(1)  # a fork after use with more would hang
    with threadpool_limits(1):
        yield


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk, figures without drawing, and one short training: none of these writes a file."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setattr(detectors, "SRIGuard", partial(SRIGuard, max_iter=2, n_init=1))
    for module in (figures, embedding):
        monkeypatch.setattr(module, "render", lambda figure, kind: b"<svg></svg>")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy prompts, few of them."""
    folder = tmp_path_factory.mktemp("prompts")
    for path in bundled_prompts("demur/toy")[0].parent.glob("*.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines()
        (folder / path.name).write_text("\n".join(lines[: ROWS.get(path.stem, 3)]), encoding="utf-8")
    shutil.copy(folder / "test_harmless.jsonl", folder / "control_few.jsonl")  # or all bundled ones would be used
    return folder


def content(folder: Path) -> dict[str, object]:
    """Every number of a study, without times and without hashes that cover times, and the names of all files."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    tables = {name: pd.read_parquet(folder / name) for name in names if name.endswith(".parquet")}
    arrays = {name: load_file(folder / name) for name in names if name.endswith(".safetensors")}
    return {
        "names": names,
        "tables": {name: table.drop(columns="seconds", errors="ignore").to_json() for name, table in tables.items()},
        "arrays": {name: {key: a.tobytes() for key, a in found.items()} for name, found in arrays.items()},
    }


def study(prompts: Path, out: Path) -> Ran:
    few = ("--steps", 2, "--quantile", 0.8, "--no-check", "--device", "cpu", "--quiet")
    return demur("study", "demur/tiny-ar", "--prompts", prompts, *few, "--out", out)


def test_a_disturbed_study_goes_on_to_the_same_numbers(tmp_path: Path, prompts: Path, record_property: Note) -> None:
    def run(folder: Path) -> None:
        ran = study(prompts, folder)
        assert ran.code == 0, ran.stderr

    count = operations_of(lambda: run(tmp_path / "whole"))
    wanted = content(tmp_path / "whole")
    at = tmp_path / "at"
    for limit in (largest(40_000), few_files()):
        with limit:
            ran = study(prompts, at)
        assert (ran.code, ran.is_one_line) == (2, True), ran.stderr
    for moment in MOMENTS:
        assert dies_at(count // 4, moment, lambda: run(at))
    run(at)
    assert content(at) == wanted
    record_property("limits", 2)
    kills = range(0, count, 8) if STEP == 1 else ()
    for place in kills:
        folder = tmp_path / str(place)
        assert dies_at(place, MOMENTS[place // 8 % 3], lambda folder=folder: run(folder))  # type: ignore[misc]
        run(folder)
        assert content(folder) == wanted
    record_property("kills", len(MOMENTS) + len(kills))
