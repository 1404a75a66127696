"""The main job on a masked diffusion model: under its own order, left to right, and without end-of-sequence filler."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import demur
import toy
import toy_diffusion
from demur.cli.commands import main
from demur.dynamics import full_recovery_rate, harmful_remasking_rate
from demur.models import Model
from demur.recording import Recording
from demur.samplers import MaskedDiffusion
from demur.studies import PROMPT_SETS, Study, compare_runs, read_study, run_study
from demur.studies.study.lengths import answer_lengths

STEPS = toy_diffusion.RESPONSE
ORDERS: dict[str, dict[str, Any]] = {
    "confidence": {},
    "left_to_right": {"order": "left_to_right"},
    "suppressed": {"suppress_eos": True},
}


@pytest.fixture(scope="module")
def model(diffusion_folder: Path) -> Model:
    return demur.load(diffusion_folder, device="cpu")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_prompts(tmp_path_factory.mktemp("prompts"), list(PROMPT_SETS))


@pytest.fixture(scope="module")
def studies(model: Model, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    out = tmp_path_factory.mktemp("studies")
    found = {}
    for name, arguments in ORDERS.items():
        sampler = model.default_sampler(steps=STEPS, response_length=STEPS, **arguments)
        found[name] = run_study(model, prompts, out / name, sampler=sampler, batch_size=80, check=False)
    return found


def rate(study: Study, name: str, group: str) -> pd.Series:
    rows = study.rates[(study.rates["rate"] == name) & (study.rates["group"] == group)]
    (found,) = [row for _, row in rows.iterrows()]
    return found


@pytest.mark.parametrize("order", ORDERS)
def test_a_study_of_a_diffusion_model_has_anchors_signal_and_guard(order: str, studies: dict[str, Study]) -> None:
    study = studies[order]
    assert study.settings["sampler"]["name"] == "MaskedDiffusion"
    assert study.signals.shape == (len(study.generations), STEPS)
    assert rate(study, "RR", "harmful")["value"] > 0.9
    assert rate(study, "RR", "harmless")["value"] < 0.1
    final = study.generations.groupby("group")["final_signal"].mean()
    assert final["harmless"] > 0.8 > 0.2 > final["harmful"]
    assert (study.path / "guard.safetensors").is_file()
    area = study.detection.query("detector == 'SRI Guard' and group == 'harmful' and subset == 'all'")["auroc"]
    assert area.item() > 0.9


@pytest.mark.parametrize("order", ORDERS)
def test_recovery_rates_follow_the_texts_of_every_step(order: str, studies: dict[str, Study]) -> None:
    recording = Recording(studies[order].path / "recordings" / "test_attacks")
    texts = [[step.predicted for step in recording.steps_text(row)] for row in range(len(recording))]
    verdicts = np.array([[bool(text) and not demur.refused(text) for text in row] for row in texts])
    for name, expected in (("HRR", harmful_remasking_rate(verdicts)), ("FRR", full_recovery_rate(verdicts))):
        found = rate(studies[order], f"{name} (complies)", "pretend")
        assert found["count"] == expected.count
        np.testing.assert_equal(found["value"], expected.value)
    assert not studies[order].rates["rate"].str.startswith("ASR").any()
    assert studies[order].settings["judge"]["malformed"] == 0


def test_a_second_run_generates_nothing(
    studies: dict[str, Study], model: Model, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = studies["confidence"]
    monkeypatch.setattr(MaskedDiffusion, "steps", lambda *a, **k: pytest.fail("generated again"))
    sampler = model.default_sampler(steps=STEPS, response_length=STEPS)
    again = run_study(model, prompts, study.path, sampler=sampler, check=False)
    pd.testing.assert_frame_equal(again.rates, study.rates)


def test_another_order_never_goes_on_in_the_same_folder(studies: dict[str, Study], model: Model, prompts: Path) -> None:
    sampler = model.default_sampler(steps=STEPS, response_length=STEPS, order="left_to_right")
    with pytest.raises(demur.InputError, match=r"holds another recording.*sampler"):
        run_study(model, prompts, studies["confidence"].path, sampler=sampler)


def test_an_answer_ends_before_the_filler(studies: dict[str, Study]) -> None:
    rows = studies["confidence"].generations
    assert (rows["answer_tokens"] == rows["text"].str.split().str.len()).all()
    assert (rows["tokens"] == STEPS).all()
    assert (studies["suppressed"].generations["answer_tokens"] == STEPS).all()


def test_the_length_of_an_autoregressive_answer_leaves_out_its_end(toy_model: Model) -> None:
    recording = demur.record(toy_model, toy.rows("test_harmful")[:20], steps=14, batch_size=3)
    assert answer_lengths(recording).tolist() == recording.table["text"].str.split().str.len().tolist()
    assert (recording.table["tokens"] == answer_lengths(recording) + 1).all()


def test_a_comparison_shows_that_the_filler_decides(studies: dict[str, Study]) -> None:
    found = compare_runs([study.path for study in studies.values()])
    assert found.runs[2] == "order=confidence, suppress_eos=True"
    table = found.table[(found.table["group"] == "pretend") & found.table["run"].eq(found.runs[2])]
    apart = table[table["baseline"].notna()].set_index("measure")
    assert apart.loc["RR", "high"] < 0
    assert apart.loc["RR", "p_value"] < 0.001
    assert apart.loc["tokens", "low"] > 0


def test_recordings_with_anchors_compare_like_their_study(studies: dict[str, Study], tmp_path: Path) -> None:
    folders = []
    for name in ("confidence", "suppressed"):
        folders.append(tmp_path / name)
        source = studies[name].path
        (tmp_path / name).symlink_to(source / "recordings" / "test_attacks")
        anchors = source / "recordings" / "test_attacks" / "anchors.safetensors"
        anchors.write_bytes((source / "anchors.safetensors").read_bytes())
    columns = ["measure", "threshold", "value", "count", "gained", "lost", "p_value"]
    tables = []
    for runs in (folders, [studies[name].path for name in ("confidence", "suppressed")]):
        table = compare_runs(runs).table
        tables.append(table.loc[table["group"] == "pretend", columns].reset_index(drop=True))
    pd.testing.assert_frame_equal(*tables)


def test_the_command_line_studies_and_compares_a_diffusion_model(
    diffusion_folder: Path,
    prompts: Path,
    studies: dict[str, Study],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: object) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["demur", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    sampler = ["--steps", STEPS, "--sampler-arg", f"response_length={STEPS}", "--sampler-arg", "order=left_to_right"]
    where = ["--out", tmp_path / "a", "--prompts", prompts, "--limit", 20]
    assert run("study", diffusion_folder, *where, *sampler, "--judge", "complies:3", "--device", "cpu") == 0
    study = read_study(tmp_path / "a")
    assert "HRR (complies:3)" in set(study.rates["rate"])
    assert study.settings["sampler"] == studies["left_to_right"].settings["sampler"]
    runs = [tmp_path / "a", studies["confidence"].path]
    assert run("compare", *runs, "--out", tmp_path / "c") == 2
    assert "give --intersect" in capsys.readouterr().err
    assert run("compare", *runs, "--out", tmp_path / "c", "--intersect") == 0
    assert "2 runs of 60 prompts: order=left_to_right; order=confidence" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        f"comparison.{ending}" for ending in ("html", "json", "parquet", "png", "svg")
    }
