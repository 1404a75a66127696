"""The command `demur check`, and the families and devices that its rows leave out."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import broken
from demur import checks
from demur.checks import check
from demur.checks.batches import batch_row
from demur.checks.bench import SHARED
from demur.checks.cost import memory_row
from demur.checks.texts import TEXT, words_of
from demur.cli import app
from demur.cli import check as cli_check
from demur.models import Model, load
from demur.samplers.uniform_diffusion.canvases import Canvases
from test_check_rows import bench_of
from test_uniform_diffusion import folder as uniform_folder

__all__ = ["uniform_folder"]


def test_the_command_exits_with_0_and_prints_json_or_a_table(toy_folder: Path) -> None:
    ran = CliRunner().invoke(app, ["check", str(toy_folder), "--quick", "--json", "--device", "cpu"])
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["ok"] is True
    ran = CliRunner().invoke(app, ["check", str(toy_folder), "--quick", "--device", "cpu"])
    assert ran.exit_code == 0 and "batch, shared" in ran.stdout and "4 ok, 1 not run" in ran.stdout


def test_the_command_exits_with_1_where_a_row_failed(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = check

    def leaking(name: str, **options: Any) -> Any:
        return real(broken.leaking(broken.llama(), rows=3), quick=options["quick"], say=options["say"])

    monkeypatch.setattr(checks, "check", leaking)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    ran = CliRunner().invoke(app, ["check", str(toy_folder), "--quick"])
    assert ran.exit_code == 1 and "failed" in ran.stdout


def test_a_model_that_cannot_be_loaded_is_bad_input() -> None:
    ran = CliRunner().invoke(app, ["check", "demur/none"])
    assert type(ran.exception).__name__ == "InputError" and "no such bundled model" in str(ran.exception)


def test_a_row_is_told_as_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    cli_check._say(checks.Row("batch, shared", "", outcome="ok"))
    assert capsys.readouterr().err == "batch, shared: ok\n"


def test_uniform_diffusion_is_checked_in_batches_and_says_what_is_not_run(uniform_folder: Path) -> None:
    found = check(uniform_folder, device="cpu", minutes=0.5)
    assert found.ok, found.table.to_string()
    rows = {row.name: row for row in found.rows}
    assert rows["batch, shared"].outcome == rows["kill and resume"].outcome == "ok"
    assert rows["states"].note == "the states are those of the network's own generate"
    assert rows["speed"].outcome == "not run"


def test_uniform_diffusion_is_compared_at_step_1_where_rounding_is_coarse(
    uniform_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(uniform_folder, device="cpu", dtype="bfloat16")
    row = batch_row(bench_of(model), SHARED)
    assert row.outcome == "ok" and row.numbers["distance"] < 0.05
    assert row.note.startswith("step 1 alone is compared")
    fine = batch_row(bench_of(load(uniform_folder, device="cpu")), SHARED)
    assert fine.outcome == "ok" and not fine.note and fine.numbers["same"] == fine.numbers["rows"]
    seen = Canvases.__init__

    def unmasked(self: Canvases, model: Model, ids: torch.Tensor, mask: torch.Tensor, *others: Any) -> None:
        seen(self, model, ids, torch.ones_like(mask), *others)

    monkeypatch.setattr(Canvases, "__init__", unmasked)
    assert batch_row(bench_of(model), SHARED).outcome == "failed"


def test_a_system_that_does_not_tell_memory_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert memory_row(bench_of(broken.llama())).outcome == "not run"


def test_a_tokenizer_that_knows_english_is_asked_in_english(toy_model: Model) -> None:
    toy_model.tokenizer.unk_token = None
    assert words_of(toy_model) == TEXT.split()
