"""Pages of a run are linked with each other, and only where their files lie; a page says what it shows first."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from demur.report.compare.differing import settings_that_differ
from demur.report.parts import sentences
from demur.report.parts.linked import CONTENTS, RUN, write_page
from demur.studies.paper.run import ADDED, write_sets

SHELL = (
    '<html><head><meta name="demur-page" content="{kind}"></head><body>'
    + RUN
    + "</nav>"
    + CONTENTS
    + '</nav><h2 id="one">One</h2><h2 id="two">Two &amp; three</h2></body></html>'
)


def links(path: Path) -> dict[str, str]:
    return dict(re.findall(r'<li><a href="([^#"][^"]*)">([^<]*)</a>', path.read_text(encoding="utf-8")))


def make(path: Path, kind: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_page(path, SHELL.format(kind=kind))
    return path


def test_pages_are_linked_in_whatever_order_they_are_written(tmp_path: Path) -> None:
    report = make(tmp_path / "a" / "report.html", "report")
    assert links(report) == {}
    viewer = make(tmp_path / "a" / "viewer.html", "viewer")
    assert links(report) == {"viewer.html": "viewer"}
    assert links(viewer) == {"report.html": "report"}
    comparison = make(tmp_path / "comparison" / "comparison.html", "comparison")
    story = make(tmp_path / "report.html", "story")
    names = {
        "a/report.html": "report of a",
        "a/viewer.html": "viewer of a",
        "comparison/comparison.html": "comparison",
    }
    assert links(story) == names
    again = make(tmp_path / "a" / "report.html", "report")
    for page in (report, again, viewer, comparison, story):
        assert len(links(page)) == 3
        assert all((page.parent / address).is_file() for address in links(page))


def test_a_file_that_is_no_page_of_ours_is_neither_linked_nor_changed(tmp_path: Path) -> None:
    (tmp_path / "viewer.html").write_text("<p>mine</p>")
    (tmp_path / "other").mkdir()
    make(tmp_path / "other" / "report.html", "report")
    assert links(make(tmp_path / "report.html", "report")) == {}
    assert (tmp_path / "viewer.html").read_text() == "<p>mine</p>"


def test_a_page_is_written_once_with_its_links_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "report.html", "report")
    moved = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, to: moved.append(Path(to).name) or replace(path, to))
    assert links(make(tmp_path / "viewer.html", "viewer")) == {"report.html": "report"}
    assert moved == ["viewer.html", "report.html"]


def test_a_damaged_page_of_the_run_stops_no_other_page(tmp_path: Path) -> None:
    report = make(tmp_path / "report.html", "report")
    damaged = report.read_bytes() + b"\xff\xfe"
    report.write_bytes(damaged)
    assert links(make(tmp_path / "viewer.html", "viewer")) == {"report.html": "report"}
    assert report.read_bytes() == damaged


def test_a_folder_of_any_name_stays_a_relative_address(tmp_path: Path) -> None:
    make(tmp_path / "javascript:alert(1)" / "report.html", "report")
    make(tmp_path / 'a"><b>' / "report.html", "report")
    source = make(tmp_path / "report.html", "story").read_text()
    assert "<b>" not in source
    assert 'href="javascript%3Aalert%281%29/report.html"' in source


def test_the_contents_are_the_headings(tmp_path: Path) -> None:
    source = make(tmp_path / "report.html", "report").read_text()
    assert '<li><a href="#one">One</a></li><li><a href="#two">Two &amp; three</a></li>' in source


def test_a_promise_that_the_measurement_breaks_is_said_to_be_broken() -> None:
    row = SimpleNamespace(detector="Streaming Guard", alpha=0.01, value=4 / 60, low=0.026, high=0.159, count=60)
    assert "Promise and measurement disagree" in sentences.promise(row)
    assert "n = 60" in sentences.promise(row)
    row.low = 0.005
    assert "which agrees" in sentences.promise(row)
    row.count = 0
    assert sentences.promise(row) == ""


def test_states_that_refuse_under_a_complying_guess_are_not_said_to_agree() -> None:
    assert "did not agree" in sentences.states_before([0.01, 0.0], [True, False])
    assert "rose to 0.90" in sentences.states_before([0.2, 0.9], [True, True])
    assert sentences.states_before([0.2], [None]) == ""


def test_no_sentence_says_that_the_states_tell_of_recovery_where_nothing_turned() -> None:
    assert "tell of it" not in sentences.early(0, 0)
    assert "tell of it" in sentences.early(0, 3)


def test_what_differs_between_runs_is_said_in_words() -> None:
    one = {"model": "m", "fingerprint": "f", "sampler": {"name": "MaskedDiffusion", "order": "confidence", "seed": 0}}
    two = {**one, "sampler": {**one["sampler"], "order": "left_to_right"}}
    assert settings_that_differ([one, two]).endswith("in the order of the runs: order (confidence, left_to_right).")
    assert "No setting differs" in settings_that_differ([one, one])
    assert "model (m, n)" in settings_that_differ([one, {**one, "model": "n"}])


@pytest.mark.parametrize("name", ["refusal suppression", "Refusal_Suppression", "refusal-suppression"])
def test_an_attack_of_another_spelling_is_not_added_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from demur.prompts import Prompt, read_prompts
    from demur.studies.paper import run

    sets = {kind: [Prompt(prompt=f"p {kind}", id=kind, label="harmful")] for kind in run.PROMPT_SETS}
    sets["test_attacks"] = [Prompt(prompt="q", id="q", label="harmful", attack=name)]
    monkeypatch.setattr(run, "read_sets", lambda *arguments: sets)
    write_sets(tmp_path, tmp_path / "out", None)
    written = {prompt.attack for prompt in read_prompts(tmp_path / "out" / "test_attacks.jsonl")}
    assert written == {name, *ADDED[1:]}
