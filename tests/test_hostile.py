"""Text that anyone may have written, in every place it can reach, does nothing to the pages that show it."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from demur.report import write_comparison, write_report, write_viewer
from demur.report.parts.labels import visible
from demur.studies.compare.compare import COLUMNS, Comparison
from demur.studies.study.tables.controls import CONTROL_COLUMNS
from made_up import HOSTILE as OTHERS
from made_up import make_hostile_study
from test_report import HOSTILE, Page, make_study
from test_viewer_in_browser import Tab, browser, overflows, tab

__all__ = ["browser", "tab"]  # fixtures
ALL = list(dict.fromkeys([*HOSTILE, *OTHERS]))
EVERYTHING = "\n".join(ALL)
NAMES = [text for text in ALL if "\ud800" not in text]  # tables of names hold no lone surrogates
SETTINGS = {"name": EVERYTHING, EVERYTHING: EVERYTHING}


def renamed(rows: pd.DataFrame) -> pd.DataFrame:
    names = [EVERYTHING if name == "mean signal" else name for name in rows["detector"]]
    return rows.assign(detector=pd.Series(names, dtype=object))


def hostile_report(folder: Path) -> Path:
    """A report in which every name and text is hostile, those of controls and detectors too."""
    study = make_study(12, 6, dict.fromkeys(NAMES, 2))
    words = pd.Series([EVERYTHING] * len(study.generations), dtype=object)  # a column of strings holds no surrogates
    rows = [
        ["SRI Guard", f"control_{name}" if plain else "control_wrapped", name, 0.5, 0.1, 0.9, 4, 2, 0.5, 0.1, 0.9, 4]
        for name in NAMES
        for plain in (True, False)
    ]
    hostile = replace(
        study,
        generations=study.generations.assign(prompt=words, text=words, id=words),
        settings={**study.settings, "model": EVERYTHING, "sampler": SETTINGS, EVERYTHING: SETTINGS},
        controls=pd.DataFrame(rows, columns=CONTROL_COLUMNS).astype({"control": object, "group": object}),
        false_positives=renamed(study.false_positives),
        detection=renamed(study.detection),
    )
    return write_report(hostile, folder / "report.html", show_text=True)


def hostile_comparison(folder: Path) -> Path:
    """A comparison of runs with hostile names and groups."""
    runs = NAMES[:2]
    level = [0.5, 0.1, 0.9, 4, "share", None, None, None]
    rows = [["RR", group, None, run, None, *level] for group in NAMES for run in runs]
    rows += [["RR", group, None, runs[1], runs[0], 5.0, 1.0, 9.0, 4, "points", 1, 0, 0.5] for group in NAMES]
    sides = [{"label": run, "model": EVERYTHING, "sampler": SETTINGS} for run in runs]
    settings = {"runs": sides, "prompts": 4, "resamples": 10, "judge": {"name": EVERYTHING, "malformed": 0}}
    table = pd.DataFrame(rows, columns=COLUMNS).astype({"threshold": float})
    return write_comparison(Comparison(table, settings), folder)


def hostile_viewer(folder: Path) -> Path:
    run = make_hostile_study(folder / "run").path
    return write_viewer(run, folder / "viewer.html", show_text=True)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    made = {"report": hostile_report, "comparison": hostile_comparison, "viewer": hostile_viewer}
    yield {name: make(tmp_path_factory.mktemp(name)) for name, make in made.items()}


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_hostile_text_stands_on_a_page_as_text(name: str, pages: dict[str, Path]) -> None:
    page = Page(pages[name])
    assert not {tag for tag, _ in page.elements} & {"script", "img", "iframe", "object", "link"}
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    assert not re.search("[\x00-\x08\x0e-\x1f\u2028\u2029\u202a-\u202e\u2066-\u2069]", page.source)
    for text in NAMES:
        assert page.text.count(" ".join(visible(text).split())) > 4


def test_hostile_text_adds_no_hidden_character_to_the_viewer(pages: dict[str, Path]) -> None:
    source = pages["viewer"].read_text(encoding="utf-8")
    assert not re.search("[\x00-\x08\x0e-\x1f\u2028\u2029\u202a-\u202e\u2066-\u2069]", source)
    assert len(re.findall("<script", source)) == 4


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["report", "comparison"])
def test_hostile_text_runs_nothing_and_widens_nothing(name: str, width: int, pages: dict[str, Path], tab: Tab) -> None:
    page: Any = tab.page
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(pages[name].as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert not overflows(page)
    assert page.evaluate("document.querySelectorAll('script, img, iframe').length") == 0
    assert tab.faults == []
