"""Files of demur 0.1, which carry no hash: refused in one line, and read with --allow-unverified."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from jobs import STEPS, WORDS, demur
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import made_up
from demur import Anchors, InputError, Recording
from demur.cli.commands import app
from demur.files.seals import UnverifiedWarning, allow_unverified
from demur.guards import load_guard
from demur.judges.cache import VerdictCache
from demur.recording import write_signal

OLD = Path(__file__).parent.parent / "fixtures" / "v0_1"
"""Written by the code of version 0.1: a recording, its anchors, signal, guard and scores, a study, verdicts."""


def _unseal(path: Path) -> None:
    """Write a file again as version 0.1 did: the same content, no hash."""
    if path.suffix == ".json":
        values = json.loads(path.read_text())
        del values["hash"]
        path.write_text(json.dumps(values))
    elif path.suffix == ".parquet":
        table = pq.read_table(path)
        marks = {name: text for name, text in table.schema.metadata.items() if name != b"demur.hash"}
        pq.write_table(table.replace_schema_metadata(marks), path)
    else:
        with safe_open(path, framework="numpy") as file:
            header = json.loads(file.metadata()["demur"])
        del header["hash"]
        save_file(load_file(path), path, {"demur": json.dumps(header)})


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, anchors, a signal and a guard, made by this version."""
    folder = tmp_path_factory.mktemp("inputs")
    made_up.write_recording(folder / "r", 30, steps=STEPS, response=8, words=WORDS)
    recording = Recording(folder / "r")
    drawn = np.random.default_rng(0).random((2, STEPS, 1, 2)).astype(np.float32)
    anchors = Anchors(drawn[0], drawn[1], recording.layers, provenance=recording.provenance)
    anchors.save(folder / "a.safetensors")
    write_signal(recording, anchors, folder / "s.parquet")
    fit = ("guard", "fit", folder / "s.parquet", "--calibration", folder / "s.parquet", "--streaming", 0.2)
    assert demur(*fit, "--out", folder / "g.safetensors").code == 0
    return folder


USES: dict[str, tuple[tuple[str, ...], Callable[[Path], list[object]]]] = {
    "anchors": (("a.safetensors",), lambda at: ["signal", at / "r", "--anchors", at / "a.safetensors"]),
    "recording": (
        ("r/manifest.json", "r/table.parquet", "r/shards/000000.parquet"),
        lambda at: ["signal", at / "r", "--anchors", at / "a.safetensors"],
    ),
    "guard": (("g.safetensors",), lambda at: ["guard", "score", at / "g.safetensors", at / "s.parquet"]),
    "signal": (("s.parquet",), lambda at: ["guard", "score", at / "g.safetensors", at / "s.parquet"]),
}


@pytest.mark.parametrize("kind", USES)
def test_a_file_without_a_hash_is_read_only_where_that_is_allowed(inputs: Path, tmp_path: Path, kind: str) -> None:
    names, command = USES[kind]
    at, whole = shutil.copytree(inputs, tmp_path / "at"), tmp_path / "whole.parquet"
    assert demur(*command(at), "--out", whole).code == 0
    for name in names:
        _unseal(at / name)
    refused = demur(*command(at), "--out", tmp_path / "out.parquet")
    assert (refused.code, refused.is_one_line) == (2, True), refused.stderr
    assert names[0] in refused.stderr and "--allow-unverified" in refused.stderr
    assert not (tmp_path / "out.parquet").exists()
    allowed = demur(*command(at), "--out", tmp_path / "out.parquet", "--allow-unverified")
    assert allowed.code == 0, allowed.stderr
    assert names[0] in allowed.stderr and "carries no hash" in allowed.stderr
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), pd.read_parquet(whole))
    again = demur(*command(at), "--out", tmp_path / "again.parquet")
    assert again.code == 2, "the permission outlived its command"


OLD_USES: dict[str, tuple[str, str | None, Callable[[Path], list[object]]]] = {
    "recording": ("r/manifest.json", "s.parquet", USES["recording"][1]),
    "guard": ("g.safetensors", "e.parquet", USES["guard"][1]),
    "study": ("study/study.json", None, lambda at: ["view", at / "study", "--no-open"]),
}


@pytest.mark.parametrize("kind", OLD_USES)
def test_what_version_0_1_wrote_is_read_only_where_that_is_allowed(tmp_path: Path, kind: str) -> None:
    named, truth, command = OLD_USES[kind]
    at, out = shutil.copytree(OLD, tmp_path / "at"), tmp_path / "out"
    refused = demur(*command(at), "--out", out)
    assert (refused.code, refused.is_one_line) == (2, True), refused.stderr
    assert f"{named}: carries no hash" in refused.stderr and "--allow-unverified" in refused.stderr
    assert not out.exists()
    allowed = demur(*command(at), "--out", out, "--allow-unverified")
    assert allowed.code == 0, allowed.stderr
    assert all(line.endswith("carries no hash and is read unverified") for line in allowed.stderr.splitlines())
    if truth is not None:  # what version 0.1 itself computed from these files
        pd.testing.assert_frame_equal(pd.read_parquet(out), pd.read_parquet(OLD / truth), rtol=1e-6)


def test_verdicts_of_version_0_1_are_read_only_where_that_is_allowed(tmp_path: Path) -> None:
    path = Path(shutil.copy(OLD / "v.jsonl", tmp_path / "v.jsonl"))
    with pytest.raises(InputError, match=r"v\.jsonl: carries no hash.*--allow-unverified"):
        VerdictCache(path)
    with allow_unverified(), pytest.warns(UnverifiedWarning):
        assert VerdictCache(path).verdicts == {"a" * 64: True, "b" * 64: False}


def test_permission_ends_with_its_command(inputs: Path, tmp_path: Path) -> None:
    """In one process and one context, where each command names the option or does not have it at all."""
    at = shutil.copytree(inputs, tmp_path / "at")
    _unseal(at / "g.safetensors")
    score = [*map(str, USES["guard"][1](at)), "--out", str(tmp_path / "out.parquet")]
    with pytest.warns(UnverifiedWarning):
        assert CliRunner().invoke(app, [*score, "--allow-unverified"]).exit_code == 0
    assert isinstance(CliRunner().invoke(app, score).exception, InputError)
    with pytest.raises(InputError, match="carries no hash"):
        load_guard(at / "g.safetensors")
