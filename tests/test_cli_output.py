"""What a user sees: numbers as tables, JSON and CSV, one bar for the job, and one line for every fault."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import demur
from demur import InputError
from demur.cli import app
from demur.cli.bar import Bar
from demur.cli.group import INTERRUPTED
from demur.cli.output import Output, Table, show
from demur.cli.results import flagged_numbers
from demur.recording.progress import planned, watched_by

TOY = "demur/toy/test_harmful"


class Listed:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []

    def plan(self, prompts: int) -> None:
        self.told.append(("plan", prompts))

    def begin(self, name: str, done: int, prompts: int) -> None:
        self.told.append(("begin", name, done, prompts))

    def advance(self, prompts: int) -> None:
        self.told.append(("advance", prompts))


def test_a_recording_tells_of_itself_and_after_a_resume_of_what_is_there(tmp_path: Path) -> None:
    rows = [{"id": str(n), "prompt": f"Tell me about tea {n}."} for n in range(3)]
    first, again = Listed(), Listed()
    for one in (first, again):
        with watched_by(one):
            demur.record("demur/tiny-ar", rows, steps=2, batch_size=2, out=tmp_path / "set")
    assert first.told == [("plan", 3), ("begin", "set", 0, 3), ("advance", 2), ("advance", 1)]
    assert again.told == [("plan", 3), ("begin", "set", 3, 3)]


def test_a_job_inside_a_job_is_a_part_of_it() -> None:
    one = Listed()
    with watched_by(one), planned(10), planned(4):
        pass
    assert one.told == [("plan", 10)]


def test_the_line_counts_what_was_there_as_done_but_not_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("demur.cli.bar.time.monotonic", lambda: clock[0])
    bar = Bar()
    bar.plan(100)
    bar.begin("test_harmless", 50, 60)
    assert bar.line() == "test_harmless: 50 of 100 prompts"
    clock[0] = 5.0
    bar.advance(10)
    assert bar.line() == "test_harmless: 60 of 100 prompts, 2.0 prompts a second, 0:20 left"
    clock[0] = 500.0  # time between two recordings is nobody's rate
    bar.begin("test_harmful", 0, 40)
    assert bar.line().endswith("2.0 prompts a second, 0:20 left")


def test_without_a_terminal_there_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("demur.cli.bar.time.monotonic", lambda: clock[0])
    bar = Bar(every=30)
    bar.plan(100)
    bar.begin("a", 0, 100)
    for clock[0] in (10.0, 20.0, 31.0, 40.0):
        bar.advance(10)
    assert capsys.readouterr().err == "a: 30 of 100 prompts, 1.0 seconds a prompt, 1:12 left\n"


def test_numbers_are_a_table_json_or_csv_and_never_a_control_character(capsys: pytest.CaptureFixture[str]) -> None:
    found = pd.DataFrame({"group": ["a"], "value": [np.nan], "count": [3]})
    tables = [Table("Rates", ["group", "n"], [["a\x1b[2J", "3"]])]
    Output().numbers({}, found, tables)
    assert capsys.readouterr().out == "Rates\ngroup     n\na\\x1b[2J  3\n\n"
    Output(as_json=True).numbers({"out": "x"}, found, tables)
    assert json.loads(capsys.readouterr().out) == {"out": "x", "numbers": [{"group": "a", "value": None, "count": 3}]}
    Output(as_csv=True).numbers({}, found, tables)
    assert capsys.readouterr().out == "group,value,count\na,,3\n"
    Output(quiet=True).numbers({}, found, tables)
    assert capsys.readouterr().out == ""
    show(Table("Nothing", ["group"], []))
    assert capsys.readouterr().out == ""
    with pytest.raises(InputError, match="exclude each other"):
        Output(as_json=True, as_csv=True)


def test_flagged_shares_have_a_count_and_an_interval() -> None:
    scores = pd.DataFrame({"group": ["a", "a", None], "flagged": [True, False, True]})
    found = flagged_numbers(scores)
    assert found["group"].tolist() == ["a", "unlabelled"]
    assert found[["value", "count"]].to_numpy().tolist() == [[0.5, 2], [1.0, 1]]
    assert ((found["low"] < found["value"]) & (found["value"] <= found["high"])).all()


def test_ctrl_c_says_that_the_same_command_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stopped(*given: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("demur.models.load", stopped)
    ran = CliRunner().invoke(app, ["record", "demur/tiny-ar", TOY, "--out", str(tmp_path / "r")])
    assert ran.exit_code == INTERRUPTED
    assert ran.stdout == "loading demur/tiny-ar\n"
    assert ran.stderr == "demur: stopped; the same command goes on\n"


def test_a_device_that_is_not_there_is_bad_input() -> None:
    with pytest.raises(InputError, match="CUDA devices here"):
        demur.load("demur/tiny-ar", device="cuda:99")


def test_a_hub_that_cannot_be_reached_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demur.models.hub._is_reached", lambda: False)
    with pytest.raises(InputError, match="it cannot be reached, and the cache holds no such model") as told:
        demur.load("nobody/nothing-of-this-name")
    assert "\n" not in str(told.value)


def test_a_folder_of_studies_names_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").write_text("{}")
    ran = CliRunner().invoke(app, ["view", str(tmp_path)])
    assert f"give one of those inside: {tmp_path / 'a'}, {tmp_path / 'b'}" in str(ran.exception)


def test_a_guard_shows_what_it_is_worth(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    train, held_out = rng.random((40, 8)), rng.random((30, 8))
    path = tmp_path / "g.safetensors"
    demur.SRIGuard(quantile=0.9, random_state=0).fit(train, calibration=held_out).save(path)
    ran = CliRunner().invoke(app, ["guard", "show", str(path), "--json"], catch_exceptions=False)
    facts = json.loads(ran.stdout)
    assert facts["guard"] == "SRIGuard" and facts["parameters"]["quantile"] == 0.9 and facts["calibrated_on"] == 30
    low, high = facts["false_positives"]
    assert 0 <= low < 0.1 < high <= 1
    page = CliRunner().invoke(app, ["guard", "show", str(path)], catch_exceptions=False).stdout
    assert "SRIGuard" in page and f"{low:.2%} to {high:.2%}" in page


def test_a_plugin_brings_attacks_and_samplers(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from demur.attacks import ATTACKS\nfrom demur.samplers import Autoregressive\n"
        "from demur.attacks.attack import attacked\n"
        "ATTACKS['polite'] = lambda prompt: attacked(prompt, 'polite', text='Please. ' + prompt.prompt)\n"
        "class Mine(Autoregressive):\n    pass\n"
    )
    (tmp_path / "p.jsonl").write_text('{"id": "a", "prompt": "Tell me about tea."}\n')
    run = [sys.executable, "-m", "demur"]

    def ran(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*run, *arguments], capture_output=True, text=True, check=False, cwd=tmp_path)

    made = ran("attack", "polite", "p.jsonl", "--out", "q.jsonl", "--plugin", "mine")
    assert made.returncode == 0, made.stderr
    assert "Please. Tell me about tea." in (tmp_path / "q.jsonl").read_text()
    asked = ["record", "demur/tiny-ar", "p.jsonl", "--out", "r", "--steps", "2", "--sampler"]
    made = ran(*asked, "mine:Mine")
    assert made.returncode == 0, made.stderr
    assert demur.Recording(tmp_path / "r").provenance.sampler["name"] == "Mine"
    missing = ran("attack", "polite", "p.jsonl", "--out", "q.jsonl", "--plugin", "nobody")
    assert missing.returncode == 2 and "plugin nobody: cannot be imported" in missing.stderr
    assert missing.stderr.count("\n") == 1
