"""The command line: the main job and its parts, and one line with exit code 2 for every fault."""

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pandas as pd
import pytest

import toy
from demur import cli
from demur.studies import PROMPT_SETS

STEPS = ["--steps", "12"]


@dataclass
class Ran:
    returncode: int
    stdout: str
    stderr: str


def demur(*arguments: object) -> Ran:
    """Run the command line in this process, which spares a start of torch each time."""
    out, err = io.StringIO(), io.StringIO()
    with patch.object(sys, "argv", ["demur", *map(str, arguments)]), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stop:
            return Ran(int(stop.code or 0), out.getvalue(), err.getvalue())
    return Ran(0, out.getvalue(), err.getvalue())


def fails(*arguments: object) -> str:
    """The one line of an error that exits with 2."""
    ran = demur(*arguments)
    assert ran.returncode == 2, ran.stderr
    assert "Traceback" not in ran.stderr
    assert ran.stderr.count("\n") == 1, ran.stderr
    return ran.stderr


@pytest.fixture(scope="module")
def parts(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings, anchors, signals and a guard, each made by its own command."""
    out = tmp_path_factory.mktemp("parts")
    kinds = ["anchors_harmless", "anchors_harmful", "guard_train_harmless", "guard_calibration_harmless"]
    toy.write_prompts(out / "prompts", kinds)
    for kind in kinds:
        ran = demur("record", toy_folder, out / "prompts" / f"{kind}.jsonl", "--out", out / kind, *STEPS)
        assert ran.returncode == 0, ran.stderr
    anchors = out / "a.safetensors"
    assert demur("anchors", out / "anchors_harmless", out / "anchors_harmful", "--out", anchors).returncode == 0
    for kind in kinds:
        ran = demur("signal", out / kind, "--anchors", anchors, "--out", out / f"{kind}.parquet")
        assert ran.returncode == 0, ran.stderr
    return out


def test_the_parts_make_a_guard_that_scores(parts: Path) -> None:
    guard, scores = parts / "g.safetensors", parts / "scores.parquet"
    train, held_out = parts / "guard_train_harmless.parquet", parts / "guard_calibration_harmless.parquet"
    assert demur("guard", "fit", train, "--calibration", held_out, "--out", guard).returncode == 0
    ran = demur("guard", "score", guard, parts / "anchors_harmful.parquet", "--out", scores)
    assert ran.returncode == 0, ran.stderr
    table = pd.read_parquet(scores)
    assert {"id", "group", "error", "flagged"} <= set(table.columns)
    assert len(table) == 60
    assert table["flagged"].mean() > 0.5


def test_a_study_leaves_a_report_that_opens_offline(toy_folder: Path, toy_prompts: Path, tmp_path: Path) -> None:
    asked = ["--limit", 25, *STEPS, "--example", "test_harmful-0-1"]
    ran = demur("study", toy_folder, "--out", tmp_path / "s", "--prompts", toy_prompts, *asked)
    assert ran.returncode == 0, ran.stderr
    page = (tmp_path / "s" / "report.html").read_text(encoding="utf-8")
    assert "<script src" not in page
    assert 'href="http' not in page
    assert "anchors_harmful: 25 prompts, 25 refused" in ran.stdout
    assert ran.stdout.splitlines()[-1] == f"every generation, step by step: demur view {tmp_path / 's'}"
    assert (tmp_path / "s" / "figures" / "roc.png").is_file()
    assert len(list((tmp_path / "s" / "figures").glob("signal-*.png"))) == 1
    line = fails("study", toy_folder, "--out", tmp_path / "t", "--prompts", toy_prompts, "--example", "nobody")
    assert "'nobody' is the id of no prompt" in line


def test_each_fault_is_one_line_and_exit_code_2(toy_folder: Path, parts: Path, tmp_path: Path) -> None:
    prompts = parts / "prompts" / "anchors_harmful.jsonl"
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "x"}\n{"prompt": ""}\n')
    (tmp_path / "empty.jsonl").write_text("")
    out = tmp_path / "out"
    assert "does not exist" in fails("record", toy_folder, tmp_path / "none.jsonl", "--out", out)
    assert "holds no prompts" in fails("record", toy_folder, tmp_path / "empty.jsonl", "--out", out)
    assert "line 2" in fails("record", toy_folder, bad, "--out", out)
    assert "no such folder" in fails("record", tmp_path / "nothing", prompts, "--out", out)
    assert "no checkpoint folder" in fails("record", tmp_path, prompts, "--out", out)
    assert "holds another recording" in fails("record", toy_folder, prompts, "--out", parts / "anchors_harmful")
    assert "steps is 0" in fails("record", toy_folder, prompts, "--out", out, "--steps", 0)
    assert "layer 'top'" in fails("record", toy_folder, prompts, "--out", out, "--layers", "top")
    assert "sampler 'Nucleus' is unknown" in fails("record", toy_folder, prompts, "--out", out, "--sampler", "Nucleus")
    assert "does not take" in fails("record", toy_folder, prompts, "--out", out, "--sampler-arg", "top_p=1")
    assert "is no recording" in fails("anchors", tmp_path, tmp_path)
    assert "no such" in fails("signal", parts / "anchors_harmful", "--anchors", tmp_path / "none.safetensors")
    assert "no such signal file" in fails("guard", "fit", tmp_path / "no", "--calibration", tmp_path / "no")
    assert "no such folder of prompt files" in fails("study", toy_folder, "--out", out, "--prompts", tmp_path / "no")
    assert not out.exists()


def test_what_does_not_belong_together_is_refused(toy_folder: Path, parts: Path, tmp_path: Path) -> None:
    prompts = parts / "prompts" / "anchors_harmful.jsonl"
    assert demur("record", toy_folder, prompts, "--out", tmp_path / "r", "--steps", 8).returncode == 0
    line = fails("signal", tmp_path / "r", "--anchors", parts / "a.safetensors", "--out", tmp_path / "s.parquet")
    assert "the anchors and the recording do not belong together: sampler steps 12 against 8" in line


def test_the_installed_command_exits_with_2_and_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demur", "anchors", str(tmp_path), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith(f"demur: {tmp_path}: is no recording")
    assert ran.stderr.count("\n") == 1


def test_help_and_import_load_nothing_heavy() -> None:
    heavy = "import sys, demur, demur.cli; print([m for m in ('torch', 'transformers', 'pandas') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout.replace("'", '"')) == []


def test_every_prompt_set_of_the_study_is_documented() -> None:
    page = (Path(__file__).parents[1] / "docs" / "study.md").read_text()
    assert all(f"`{name}`" in page for name in PROMPT_SETS)
