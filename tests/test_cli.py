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
from demur.guards import DirectionGuard, StreamingGuard
from demur.prompts import Prompt, read_prompts
from demur.recording import Recording
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


def test_every_kind_of_guard_is_fitted_and_scores(parts: Path) -> None:
    train, held_out = (parts / f"guard_{kind}_harmless.parquet" for kind in ("train", "calibration"))
    stream, scores = parts / "stream.safetensors", parts / "stream.parquet"
    ran = demur("guard", "fit", train, "--calibration", held_out, "--streaming", 0.1, "--out", stream)
    assert ran.returncode == 0 and "StreamingGuard" in ran.stdout, ran.stderr
    assert demur("guard", "score", stream, parts / "anchors_harmful.parquet", "--out", scores).returncode == 0
    table = pd.read_parquet(scores)
    assert ((table["stopped_at"] > 0) == table["flagged"]).all() and table["flagged"].any()

    train, held_out = (parts / f"guard_{kind}_harmless" for kind in ("train", "calibration"))
    harmful, direction = parts / "anchors_harmful", parts / "direction.safetensors"
    asked = ["--calibration", held_out, "--harmful", harmful, "--quantile", 0.9]
    assert demur("guard", "fit", train, *asked, "--out", direction).returncode == 0
    assert demur("guard", "score", direction, harmful, "--out", scores).returncode == 0
    assert pd.read_parquet(scores)["flagged"].mean() > 0.5

    guard = DirectionGuard.load(direction)
    errors = [guard.place_errors(guard.states(Recording(folder))) for folder in (train, held_out)]
    StreamingGuard(0.1, side="high").fit(errors[0], calibration=errors[1]).save(stream)
    assert demur("guard", "score", stream, harmful, "--source", direction, "--out", scores).returncode == 0
    table = pd.read_parquet(scores)
    assert set(table["stopped_at"]) <= {0, 6, 12} and table["flagged"].any()
    assert ((table["stopped_at"] > 0) == table["flagged"]).all()
    assert "is a recording, and this guard judges signals" in fails("guard", "score", stream, harmful)
    assert "--source is for a streaming guard" in fails("guard", "score", direction, harmful, "--source", direction)
    assert "--quantile is not of" in fails("guard", "fit", train, *asked[:2], "--streaming", 0.1, "--quantile", 0.9)
    assert "give one of them" in fails("guard", "fit", train, *asked, "--streaming", 0.1)
    assert "'sri-guard' or" in fails("guard", "score", parts / "a.safetensors", harmful)


def test_the_texts_of_another_model_are_forced(toy_folder: Path, parts: Path, tmp_path: Path) -> None:
    prompts, texts = parts / "prompts" / "anchors_harmful.jsonl", tmp_path / "texts.jsonl"
    rows = [{"id": prompt.id, "response": "sure here is"} for prompt in read_prompts(prompts)]
    asked = ["record", toy_folder, prompts, "--responses", texts, "--out", tmp_path / "forced", *STEPS]

    def fails_with(*written: object) -> str:
        texts.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
        return fails(*asked)

    assert "has no response for 1 of 60 prompts" in fails_with(*rows[:-1])
    assert "a second response" in fails_with(*rows, rows[0])
    assert "line 1: expected the fields 'id' and 'response'" in fails_with({"id": "a"})
    texts.write_text("".join(json.dumps(row) + "\n" for row in reversed(rows)), encoding="utf-8")
    ran = demur(*asked)
    assert ran.returncode == 0, ran.stderr
    assert set(Recording(tmp_path / "forced").table["text"]) == {"sure here is"}


def test_a_published_artifact_becomes_a_prompt_file(tmp_path: Path) -> None:
    source, out = tmp_path / "behaviours.csv", tmp_path / "prompts.jsonl"
    source.write_text("Behavior,SemanticCategory,BehaviorID\nBake a cake,kitchen,cake\n", encoding="utf-8")
    ran = demur("artifact", source, "--out", out)
    assert ran.returncode == 0 and "1 prompts" in ran.stdout, ran.stderr
    assert read_prompts(out) == [Prompt("cake", "Bake a cake", label="harmful", category="kitchen")]
    assert "unknown kind of artifact" in fails("artifact", tmp_path / "x.txt", "--out", out)


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
