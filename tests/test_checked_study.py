"""A study checks its model first, keeps what was found, and stops where the check fails."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

import broken
from demur.errors import InputError
from demur.models import Model
from demur.report import write_report
from demur.studies import read_study, run_study
from demur.studies.study.checked import FILE, checked


def test_a_study_keeps_its_quick_check_and_the_report_shows_it(
    toy_model: Model, toy_prompts: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    study = run_study(toy_model, toy_prompts, tmp_path, steps=6, limit=24, say=said.append)
    kept = json.loads((tmp_path / "study.json").read_text())["check"]
    assert kept["ok"] is True and kept["quick"] is True
    assert kept["fingerprint"] == study.settings["fingerprint"]
    assert [row["name"] for row in kept["rows"]][:2] == ["prompt", "batch, shared"]
    assert said[0].startswith("quick check: 4 ok")
    page = write_report(read_study(tmp_path), tmp_path / "report.html").read_text()
    assert "Whether the model was measured rightly" in page
    assert "tokens equal in 4 of 4 rows" in page
    assert page.count("batch, shared") == 1, "the check is a section of its own and no setting"


def test_a_study_stops_in_one_line_where_its_check_fails(toy_model: Model, toy_prompts: Path, tmp_path: Path) -> None:
    model = broken.leaking(toy_model, rows=3)
    with pytest.raises(InputError, match=r"the quick check failed in batch, shared, states .*--no-check") as error:
        run_study(model, toy_prompts, tmp_path, steps=6)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "recordings").exists()
    assert json.loads((tmp_path / FILE).read_text())["ok"] is False


def test_a_check_that_was_left_out_is_kept_as_such(toy_model: Model, toy_prompts: Path, tmp_path: Path) -> None:
    run_study(broken.leaking(toy_model, rows=3), toy_prompts, tmp_path, steps=6, limit=24, check=False)
    study = read_study(tmp_path)
    assert study.settings["check"] == {"ok": None, "sentence": "left out with --no-check", "rows": []}
    assert "left out with --no-check" in write_report(study, tmp_path / "report.html").read_text()


def test_a_study_from_before_there_was_a_check_is_still_shown(toy_study: Path, tmp_path: Path) -> None:
    study = read_study(toy_study)
    old = replace(study, settings={name: value for name, value in study.settings.items() if name != "check"})
    assert "on this model, device and dtype: not measured." in write_report(old, tmp_path / "old.html").read_text()


def test_the_same_model_is_checked_once_and_another_one_anew(toy_model: Model, tmp_path: Path) -> None:
    said: list[str] = []
    first = checked(toy_model, tmp_path, resume=True, say=said.append)
    assert checked(toy_model, tmp_path, resume=True, say=said.append) == json.loads(json.dumps(first))
    assert len(said) == 1
    checked(broken.llama(), tmp_path, resume=True, say=said.append)
    assert len(said) == 2
    (tmp_path / FILE).write_text("{torn")
    checked(broken.llama(), tmp_path, resume=True, say=said.append)
    assert len(said) == 3
    checked(broken.llama(), tmp_path, resume=False, say=said.append)
    assert len(said) == 4
