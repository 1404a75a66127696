"""Tables of a study and of the protocol: each is one function that registers itself."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import made_up
from demur.errors import InputError
from demur.files.manifests import read_manifest, write_manifest
from demur.report import write_report
from demur.studies import STUDY_TABLES, Study, read_study
from demur.studies.paper import PAPER_TABLES
from demur.studies.study import tables as study_tables

NOTE = "How long the longest answer is."


@pytest.fixture
def own_table() -> Iterator[None]:
    """A table of one's own, for the test alone."""
    known = dict(STUDY_TABLES)

    @STUDY_TABLES.table("longest", columns=("group", "tokens"), title="Longest answers", note=NOTE, needs="answers")
    def longest(material: Any) -> pd.DataFrame:
        return pd.DataFrame({"group": ["harmless", "harmful"], "tokens": [7, 3]})

    yield
    STUDY_TABLES.clear()
    STUDY_TABLES.update(known)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    found = replace(made_up.make_study(tmp_path), tables={kind.name: kind.empty() for kind in STUDY_TABLES.values()})
    found.save(tmp_path)
    return found


def test_every_table_is_a_module_of_its_name() -> None:
    files = {path.stem for path in Path(str(study_tables.__file__)).parent.glob("*.py")} - {"__init__"}
    assert files == set(STUDY_TABLES)
    assert len({kind.place for kind in PAPER_TABLES.values()}) == len(PAPER_TABLES) == 10


def test_a_table_of_ones_own_is_kept_read_and_shown(study: Study, own_table: None) -> None:
    found = STUDY_TABLES["longest"].make(None)  # type: ignore[arg-type]
    study.with_tables(longest=found).save(study.path)
    again = read_study(study.path)
    pd.testing.assert_frame_equal(again.longest, found)
    page = write_report(again, study.path / "report.html").read_text()
    assert "Longest answers" in page and NOTE in page and ">7</span>" in page


def test_a_study_without_a_newer_table_opens_and_its_page_says_how_to_make_it(study: Study, own_table: None) -> None:
    again = read_study(study.path)
    assert again.missing == ["longest"] and not len(again.longest)
    page = write_report(again, study.path / "report.html").read_text()
    assert (
        f"longest, and is “not measured” below; `demur study example/made-up --prompts FOLDER --out {study.path}`"
        in page
    )


def test_tables_of_a_plugin_that_is_not_loaded_are_read_and_shown(study: Study) -> None:
    shares = pd.DataFrame({"group": ["a"], "value": [0.5], "low": [0.2], "high": [0.8], "count": [4], "hits": [2]})
    study.with_tables(shares=shares, secrets=pd.DataFrame({"id": ["x"], "prompt": ["SECRET"]})).save(study.path)
    again = read_study(study.path)
    pd.testing.assert_frame_equal(again.shares, shares)
    page = write_report(again, study.path / "report.html").read_text()
    assert "20.0–80.0%" in page and "SECRET" not in page
    assert "SECRET" in write_report(again, study.path / "report.html", show_text=True).read_text()


def test_every_page_of_a_study_that_lacks_all_tables_can_be_written(study: Study) -> None:
    settings = read_manifest(study.path / "study.json")
    for name in STUDY_TABLES:
        (study.path / f"{name}.parquet").unlink()
        del settings["tables"][f"{name}.parquet"]
    write_manifest(study.path / "study.json", settings)
    again = read_study(study.path)
    assert set(again.missing) == set(STUDY_TABLES)
    page = write_report(again, study.path / "report.html").read_text()
    assert "not measured" in page and ", ".join(STUDY_TABLES) in page


@pytest.mark.parametrize("name", ["signals", "steps", "two words", "_hidden", "../up"])
def test_a_name_that_a_study_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="give it another"):
        STUDY_TABLES.table(name, columns=(), title="")


def test_no_two_tables_have_one_name_and_no_attribute_is_made_up(study: Study) -> None:
    with pytest.raises(InputError, match="table of a study 'rates' is there already"):
        STUDY_TABLES.table("rates", columns=(), title="")(lambda material: pd.DataFrame())
    with pytest.raises(AttributeError, match="no table or attribute 'ratings'"):
        _ = study.ratings
