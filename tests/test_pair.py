"""The whole way on the bundled pair: study, resume, guard, comparison and report."""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import demur
from demur.defenses import GuardDefense, generate_guarded
from demur.judges import CompliesJudge
from demur.prompts import write_prompts
from demur.recording import folder as files
from demur.report import write_report
from demur.studies import Study, compare_runs, run_study
from demur.studies.study.prompt_sets import first_of_each, read_sets

TOY = "demur/toy"
LIMIT = 20
DIFFUSION = {"diffusion": {}, "order": {"order": "left_to_right"}}


def few(folder: Path) -> Path:
    """The bundled prompts, `LIMIT` of each group; one harmless prompt in each attack's wrapper."""
    for name, found in read_sets(Path(TOY), LIMIT).items():
        write_prompts(first_of_each(found, 1) if name == "control_wrapped" else found, folder / f"{name}.jsonl")
    return folder


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Study]:
    """tiny-ar, and tiny-diffusion under its own order and left to right."""
    out = tmp_path_factory.mktemp("pair")
    prompts = few(out / "prompts")
    causal, masked = demur.load("demur/tiny-ar"), demur.load("demur/tiny-diffusion")
    samplers = {"ar": causal.default_sampler()}
    samplers |= {name: masked.default_sampler(**arguments) for name, arguments in DIFFUSION.items()}
    return {
        name: run_study(
            causal if name == "ar" else masked,
            prompts,
            out / name,
            sampler=sampler,
            batch_size=64,
            judge=CompliesJudge(8),
            check=False,
        )
        for name, sampler in samplers.items()
    }


@pytest.mark.parametrize("name", ["ar", *DIFFUSION])
def test_the_signal_parts_answers_from_refusals(studies: dict[str, Study], name: str) -> None:
    final = studies[name].generations.groupby("set")["final_signal"].mean()
    assert final["test_harmless"] >= 0.8
    assert final["test_harmful"] <= 0.2


@pytest.mark.parametrize("name", ["ar", *DIFFUSION])
def test_plain_requests_are_told_apart_by_the_model(studies: dict[str, Study], name: str) -> None:
    refusals = studies[name].rates.query("rate == 'RR'").set_index("group")
    assert refusals.loc["harmful", "value"] >= 0.95
    assert refusals.loc["harmless", "value"] <= 0.05
    assert (refusals["count"] == LIMIT).all()


def test_only_the_sampler_that_revises_has_recovery_rates(studies: dict[str, Study]) -> None:
    assert not studies["ar"].rates["rate"].str.startswith("HRR").any()
    recovered = studies["diffusion"].rates.query("rate == 'HRR (complies:8)'")
    assert (recovered["count"] > 0).any()


def test_a_text_that_complied_midway_can_end_as_a_refusal(studies: dict[str, Study]) -> None:
    recording = demur.Recording(studies["diffusion"].path / "recordings" / "test_attacks")
    recovered = [
        row
        for row, texts in recording.all_steps_text()
        if texts[0].predicted.startswith("Sure") and demur.refused(texts[-1].predicted)
    ]
    assert recovered


def test_both_orders_are_compared_over_the_same_weights(studies: dict[str, Study]) -> None:
    found = compare_runs([studies["order"].path, studies["diffusion"].path])
    paired = found.table.query("measure == 'RR' and group == 'all attacks' and baseline.notna()", engine="python")
    assert paired["count"].tolist() == [10 * LIMIT]
    levels = found.table.query("measure == 'RR' and group == 'all attacks' and baseline.isna()", engine="python")
    order, own = levels["value"]
    assert paired["value"].item() == pytest.approx(100 * (own - order))


def test_the_guard_is_read_back_and_gives_the_flags_of_the_study(studies: dict[str, Study]) -> None:
    study = studies["ar"]
    guard = demur.SRIGuard.load(study.path / "guard.safetensors")
    np.testing.assert_array_equal(guard.predict(study.signals) == -1, study.generations["flagged"])


def test_the_saved_guards_stop_a_running_generation_where_the_study_says(studies: dict[str, Study]) -> None:
    study, model = studies["ar"], demur.load("demur/tiny-ar")
    looks = demur.DirectionGuard.load(study.path / "direction_looks.safetensors")
    watching = demur.StreamingGuard.load(study.path / "streaming_direction_guard.safetensors")
    attacks = study.generations.query("set == 'test_attacks'")
    found = generate_guarded(model, attacks["prompt"].tolist(), looks, watching)
    said = study.streaming.query("detector == 'Streaming Guard on the direction' and group == 'all attacks'")
    assert 0 < said["value"].item() < 1
    assert (found["stopped_at"] > 0).mean() == pytest.approx(said["value"].item())
    assert found.loc[found["stopped_at"] > 0, "stopped_at"].median() == said["median_step"].item()


def test_the_saved_guards_are_defenses_over_a_recording(studies: dict[str, Study]) -> None:
    study = studies["diffusion"]
    direction = demur.DirectionGuard.load(study.path / "direction_guard.safetensors")
    looks = demur.DirectionGuard.load(study.path / "direction_looks.safetensors")
    watching = demur.StreamingGuard.load(study.path / "streaming_direction_guard.safetensors")
    defenses = {
        "Direction Guard": GuardDefense(direction),
        "Streaming Guard on the direction": GuardDefense(watching, looks),
    }
    for (name, defense), harmful in itertools.product(defenses.items(), (False, True)):
        recorded = "test_attacks" if harmful else "test_harmless"
        recording = demur.Recording(study.path / "recordings" / recorded)
        blocked = defense(recording.table["prompt"].tolist(), recording.table["text"].tolist(), recording).blocked
        assert bool(blocked.mean() > 0.5) is harmful
        scores = study.scores.loc[study.generations["set"] == recorded, name]
        np.testing.assert_array_equal(blocked, scores > defense.guard.threshold_)


def test_a_study_that_was_interrupted_ends_as_if_it_had_not_been(
    studies: dict[str, Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, write = [], files.write_shard

    def dying(*arguments: object) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(write(*arguments))

    model = demur.load("demur/tiny-ar")
    prompts, arguments = few(tmp_path / "prompts"), {"judge": CompliesJudge(8), "check": False}
    monkeypatch.setattr(files, "write_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        run_study(model, prompts, tmp_path / "study", batch_size=13, **arguments)
    monkeypatch.undo()
    resumed = run_study(model, prompts, tmp_path / "study", batch_size=7, **arguments)
    whole = studies["ar"]
    pd.testing.assert_series_equal(resumed.generations["text"], whole.generations["text"])
    np.testing.assert_allclose(resumed.signals, whole.signals, atol=1e-3)


def test_the_report_shows_texts_only_when_asked(studies: dict[str, Study], tmp_path: Path) -> None:
    study = studies["diffusion"]
    harmless = study.generations.query("set == 'test_harmless'")["text"].tolist()
    for show in (False, True):
        page = write_report(study, tmp_path / "report.html", show_text=show).read_text(encoding="utf-8")
        assert any(text in page for text in harmless) is show
