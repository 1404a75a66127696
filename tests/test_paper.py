"""The paper's protocol: its tables on the bundled pair, what it resumes, its page, and the published numbers."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import demur
from demur.attacks.infilling import dija
from demur.cli.commands import app
from demur.errors import InputError
from demur.prompts import write_prompts
from demur.report import write_paper
from demur.report.paper.page import _digits
from demur.studies.paper import PAPER_TABLES, Paper, run_paper
from demur.studies.paper.published import DEFENSES, RATES, of_group, paper_model
from demur.studies.paper.subject import COLUMNS
from demur.studies.paper.tables import defenses as defenses_module
from demur.studies.paper.tables.infilling import template_shape
from demur.studies.study.prompt_sets import first_of_each, read_sets

SIZES = {"anchors_harmless": 16, "anchors_harmful": 16, "guard_train_harmless": 30, "guard_calibration_harmless": 24}
SIZES |= {"test_harmless": 12, "test_harmful": 8, "test_attacks": 4, "control_wrapped": 2}
ATTACKS = ("role play", "two at once")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prompts")
    for name, found in read_sets(Path("demur/toy"), None).items():
        kept = [prompt for prompt in found if prompt.attack in (None, *ATTACKS)]
        write_prompts(first_of_each(kept, SIZES[name]), folder / f"{name}.jsonl")
    return folder


@pytest.fixture(scope="module")
def paper(prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Paper:
    return run(prompts, tmp_path_factory.mktemp("paper"))


def run(prompts: Path, out: Path, **more: Any) -> Paper:
    return run_paper(
        ["demur/tiny-ar", "demur/tiny-diffusion"], demur.load, prompts, out, batch_size=64, **{"check": False, **more}
    )


def test_every_table_is_tidy_and_kept(paper: Paper) -> None:
    assert list(paper.tables) == [kind.name for kind in PAPER_TABLES.in_order()]
    for name, table in paper.tables.items():
        assert list(table.columns) == COLUMNS
        assert not table.duplicated(["model", "group", "measure"]).any()
        pd.testing.assert_frame_equal(
            pd.read_parquet(paper.path / "tables" / f"{name}.parquet"), table, check_dtype=False
        )
        assert (table["count"] > 0).all() or name == "table_1_remasking"
        known = table.dropna(subset=["low", "high"])
        assert (known["low"] <= known["value"] + 1e-9).all() and (known["value"] <= known["high"] + 1e-9).all()


def test_only_the_diffusion_model_has_what_takes_revision(paper: Paper) -> None:
    for name in ("table_1_remasking", "table_2_swap", "table_14_infilling"):
        assert set(paper.tables[name]["model"]) == {"demur/tiny-diffusion"}
    assert set(paper.tables["table_3_attacks"]["model"]) == {"demur/tiny-ar", "demur/tiny-diffusion"}
    assert paper.tables["figures_5_6_recovery"]["measure"].str.endswith("left to right").any()


def test_templates_are_as_large_as_the_response_has_room_for(paper: Paper) -> None:
    table = paper.tables["table_14_infilling"]
    assert dict(zip(table["group"], table["note"], strict=True)) == {
        "dija": "2 of 3 steps of 4 positions",
        "pad": "3 of 5 steps of 6 positions",
    }
    assert (table["count"] == SIZES["test_harmful"]).all()


def test_diffuguard_stands_beside_the_guard_in_table_14(paper: Paper) -> None:
    measures = paper.tables["table_14_infilling"].groupby("group")["measure"].agg(list)
    assert all({"RR", "RR with guard", "RR with DiffuGuard"} <= set(found) for found in measures)
    made = demur.Recording(next(paper.path.rglob("pad-diffuguard")))
    assert made.provenance.sampler["name"] == "DiffuGuard"
    model = demur.load("demur/tiny-diffusion")
    for room, steps, gap in ((32, 2, 4), (34, 2, 5), (128, 3, 20), (16, None, None)):
        shape = template_shape(dija, 3, model, model.default_sampler(response_length=room))
        assert shape == ((steps, gap) if steps else None), room


def test_attacks_of_the_paper_are_added(paper: Paper) -> None:
    found = {*ATTACKS, "refusal-suppression", "flip-characters-in-sentence"}
    assert set(paper.tables["table_3_attacks"]["group"]) == {*found, "harmless", "harmful", "all attacks"}
    chosen = paper.tables["leave_one_attack_out"]
    assert set(chosen["group"]) == found and (chosen["note"] != "").all()
    assert set(chosen["measure"]) == {"AUROC", "caught"}


def test_all_attacks_are_the_sum_of_each(paper: Paper) -> None:
    rows = paper.tables["table_3_attacks"].query("model == 'demur/tiny-ar' and measure == 'RR'").set_index("group")
    each = rows.drop(index=["harmless", "harmful", "all attacks"])
    assert rows.loc["all attacks", "count"] == each["count"].sum()
    assert rows.loc["all attacks", "value"] == pytest.approx(
        (each["value"] * each["count"]).sum() / each["count"].sum()
    )


def test_the_swap_is_the_difference_of_both_orders(paper: Paper) -> None:
    subject = paper.subjects[1]
    assert subject.ordered is not None
    share = {
        place: one.rates.query("rate == 'RR' and group == 'two at once'")["value"].iloc[0]
        for place, one in enumerate((subject.study, subject.ordered))
    }
    gained = paper.tables["table_2_swap"].query("group == 'two at once'")["value"].iloc[0]
    assert gained == pytest.approx(100 * (share[0] - share[1]))


def test_the_ablation_reads_every_layer_that_was_kept(paper: Paper) -> None:
    measures = set(paper.tables["table_4_ablation"]["measure"])
    assert {
        "text-level signal",
        "first step alone",
        *(f"SRI, {name} layer" for name in ("first", "middle", "last")),
    } <= measures
    published = paper.tables["table_4_ablation"].query("measure == 'SRI, last layer' and group == 'mean over attacks'")
    assert (published["published"] == 0.92).all()


def test_defenses_only_add_to_what_the_model_refuses(paper: Paper) -> None:
    table = paper.tables["table_13_defenses"].query("model == 'demur/tiny-diffusion'")
    blocked = table[table["measure"] == "all attacks, refused or blocked"].set_index("group")["value"]
    assert {"none", "perplexity", "self-examine", "SRIGuard", "DirectionGuard", "StreamingGuard"} < set(blocked.index)
    assert {"StreamingGuard on the direction", "DirectionGuard or perplexity"} < set(blocked.index)
    assert (blocked >= blocked["none"]).all()
    assert blocked["SRIGuard or self-examine"] >= max(blocked["SRIGuard"], blocked["self-examine"])
    overhead = table[table["measure"] == "overhead"].set_index("group")["value"]
    assert overhead["none"] == 0 and (overhead.drop("none") > 0).all()


def test_a_limit_set_for_more_false_positives_gives_more(paper: Paper) -> None:
    table = paper.tables["calibration"].query("model == 'demur/tiny-ar' and group == 'SRI Guard'")
    flagged = table[table["measure"].str.startswith("flagged")]["value"]
    assert len(flagged) == 5 and (np.diff(flagged) >= 0).all()


def test_a_second_run_generates_and_asks_nothing(paper: Paper, prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_steps(*_: object, **__: object) -> None:
        raise AssertionError("a model was run")

    monkeypatch.setattr("demur.samplers.Autoregressive.steps", no_steps)
    monkeypatch.setattr("demur.samplers.MaskedDiffusion.steps", no_steps)
    monkeypatch.setattr(defenses_module.SelfExamine, "__call__", no_steps)
    again = run(prompts, paper.path)
    for name, table in paper.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table)


def test_the_page_shows_every_table_and_refers_to_nothing(paper: Paper, tmp_path: Path) -> None:
    page = write_paper(paper, tmp_path / "report.html").read_text()
    assert all(kind.title in page for kind in PAPER_TABLES.values())
    assert not re.search(r"<script|<link|src=(?!\"data:)|https?://(?!www.w3.org)", page)
    assert "paper 0.920" in page and not re.search(r">[^<]*\bnan\b[^<]*<", page)
    assert page.count("<figure") == 1 + 2 + 2 * 5
    for anchor in re.findall(r'<a href="#(\w+)"', page):
        assert f'<h2 id="{anchor}"' in page
    overview = page[page.index('id="overview"') : page.index("Defenses of every model")]
    blocked = paper.tables["table_13_defenses"].query("group == 'DirectionGuard' and measure.str.startswith('all att')")
    assert all(f"{100 * value:.1f}%" in overview for value in blocked["value"])


def test_a_time_is_printed_without_exponent() -> None:
    assert [_digits(one) for one in (150.4, 27.3, 9.99, 0.27, 0.0000123)] == ["150", "27", "10", "0.27", "0.000012"]


def test_two_models_of_one_name_are_refused(prompts: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="end differently"):
        run_paper(["a/tiny", "b/tiny"], demur.load, prompts, tmp_path)


def test_the_command_takes_models_one_after_another(
    prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def stop(models: list[str], *_: object, **__: object) -> None:
        asked.append(models)
        raise InputError("enough")

    monkeypatch.setattr("demur.studies.paper.run_paper", stop)
    command = ["study", "paper", "--models", "A", "B", "C", "--prompts", str(prompts), "--out", str(tmp_path)]
    CliRunner().invoke(app, command)
    assert asked == [["A", "B", "C"]]


def test_published_numbers_are_found_by_checkpoint_and_group() -> None:
    assert paper_model("GSAI-ML/LLaDA-8B-Instruct") == "LLaDA" and paper_model("demur/tiny-ar") is None
    assert of_group(RATES, "Qwen/Qwen2.5-7B-Instruct", "all attacks") == (11.4, 62.2)
    assert of_group(RATES, "google/gemma-7b-it", "flip-fool-model") == (10, 86)
    assert DEFENSES["Dream"]["SRIGuard"] == (0.03, 6, 56.4, 7.2)
