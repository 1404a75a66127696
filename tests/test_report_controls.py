"""What a report says of the controls and of the detectors side by side is what the study's tables hold."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from demur.report import write_report
from demur.report.parts.labels import NOT_MEASURED
from demur.report.parts.tables import detection_table, mean_auroc
from demur.report.study.detectors import (
    WRAPPED_HEADLINE,
    compared_table,
    control_name,
    controls_table,
    correlations_table,
    wrapped_headline,
)
from demur.studies import Study
from demur.studies.study.tables.controls import CONTROL_COLUMNS
from test_report import Page, make_study

GUARDS = ("SRI Guard", "mean signal", "Direction Guard")


@pytest.fixture(scope="module")
def study() -> Study:
    """A study with a trajectory guard, made-up controls and lengths that go with the score."""
    found = make_study(20, 10, {"PAIR": 8, "JBC": 10})
    more = {name: getattr(found, name) for name in ("detection", "false_positives", "correlations")}
    for name, rows in more.items():
        own = rows[rows["detector"] == "mean signal"].assign(detector="Direction Guard")
        more[name] = pd.concat([rows, own], ignore_index=True)
    sets = [("control_other_languages", "harmless", 2, 18), ("control_wrapped", "PAIR", 6, 8)]
    sets += [("control_wrapped", "JBC", 3, 10)]
    rows = [
        [guard, control, group, flagged / count, 0.1, 0.9, count, flagged, 0.6, 0.5, 0.7, count]
        for guard in GUARDS
        for control, group, flagged, count in sets
    ]
    return replace(found, controls=pd.DataFrame(rows, columns=CONTROL_COLUMNS), **more)


def test_a_row_a_control_shows_both_guards_under_the_plain_test_prompts(study: Study) -> None:
    table = controls_table(study)
    assert [name for name, _ in table.rows] == [
        "test prompts, as they are",
        "other languages",
        "harmless in PAIR",
        "harmless in JBC",
    ]
    assert table.spans == [("SRI Guard", 2), ("Direction Guard", 2)]
    cells = dict(table.rows)["harmless in PAIR"]
    assert [cell.value for cell in cells] == ["75.0%", "0.600"] * 2
    assert cells[1].cases == "n\u00a0=\u00a08 against 8"
    assert dict(table.rows)["test prompts, as they are"][1].cases == "n\u00a0=\u00a018 against 20"


def test_the_headline_pools_the_wrappers_and_stands_beside_the_other_numbers(study: Study, tmp_path: Path) -> None:
    flagged, auroc = (wrapped_headline(study)[name] for name in WRAPPED_HEADLINE)
    assert (flagged.value, flagged.cases) == ("50.0%", "n\u00a0=\u00a018")
    assert (auroc.value, auroc.cases) == ("0.600", "n\u00a0=\u00a018 against 18, 2 attacks")
    page = Page(write_report(study, tmp_path / "report.html"))
    assert page.text.index("Controls") < page.text.index("How often the model refuses")
    assert "own wrappers it flags 50.0% (" in page.text
    assert "demur view RUN" in page.text


def test_correlations_are_those_of_the_study(study: Study) -> None:
    table = correlations_table(study)
    row = study.correlations.query("detector == 'SRI Guard' and length == 'prompt_tokens'").iloc[0]
    cell = dict(table.rows)["length of the prompt"][0]
    assert cell.value.replace("−", "-") == f"{row['value']:+.2f}"
    assert cell.cases == "n\u00a0=\u00a020"
    assert dict(table.rows)["length of the answer"][0].value == NOT_MEASURED


def test_every_detector_has_a_row_and_only_three_have_columns(study: Study) -> None:
    compared = dict(compared_table(study).rows)
    assert list(compared) == ["SRI Guard", "mean signal", "SRI Guard on the text signal", "Direction Guard"]
    assert compared["SRI Guard"][0] == mean_auroc(study)
    row = study.detection.query("detector == 'mean signal' and group == 'all attacks' and subset == 'complied'").iloc[0]
    assert compared["mean signal"][2].value == f"{100 * row['tpr']:.1f}%"
    spans = dict(detection_table(study, "all", "").spans)
    assert list(spans) == ["SRI Guard", "Direction Guard", "SRI Guard on the text signal"]


def test_a_study_without_controls_says_that_they_were_not_measured(study: Study, tmp_path: Path) -> None:
    nothing = pd.DataFrame({"value": pd.Series(dtype=float)})
    for empty in (study.controls.iloc[:0], nothing):
        none = replace(study, controls=empty, correlations=nothing)
        page = Page(write_report(none, tmp_path / "report.html"))
        assert "and how well attacks are told from them: not measured" in page.text
        assert "own wrappers it flags not measured" in page.text
        assert "over the harmless test prompts: not measured" in page.text


def test_controls_have_readable_names() -> None:
    assert control_name("control_sounds_dangerous", "harmless") == "sounds dangerous"
    assert control_name("control_wrapped", "JBC") == "harmless in JBC"
    assert control_name("control_mine", "a") == "mine, a"
