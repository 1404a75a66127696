"""The step viewer: a file that holds what was recorded and nothing more, and a page that any text leaves intact."""

import base64
import hashlib
import json
import re
import sys
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import demur
import toy
from demur import InputError
from demur.cli.commands import main
from demur.models import Model
from demur.recording.recording import StepTokens
from demur.report import write_viewer
from demur.report.viewer.packing import Codes
from demur.studies import Study
from made_up import HOSTILE, Page, make_hostile_study, make_study, rows_of, write_recording, write_study


@dataclass
class Unpacked:
    """A record read the way packing.py describes it."""

    signals: np.ndarray
    committed_at: np.ndarray
    changed: np.ndarray
    codes: np.ndarray


def unpack(page: Page, place: int) -> Unpacked:
    run = json.loads(page.scripts["run"])
    steps, response, width = run["steps"], run["response"], run["width"]
    data = base64.b64decode(page.scripts["records"][run["offsets"][place] : run["offsets"][place + 1]])
    shorts = np.frombuffer(data, "<u2", count=2 * steps + response)
    at, line = 2 * len(shorts), -(-response // 8)
    changed = np.zeros((steps - 1, response), dtype=bool)
    if run["revises"]:
        bits = np.frombuffer(data, np.uint8, count=(steps - 1) * line, offset=at).reshape(-1, line)
        changed = np.unpackbits(bits, axis=1, count=response, bitorder="little").astype(bool)
        at += (steps - 1) * line
    codes = [int.from_bytes(data[i : i + width], "little") for i in range(at, len(data) - width + 1, width)]
    rows = [np.array(codes[:response])]
    left = iter(codes[response:])
    for moved in changed:
        rows.append(rows[-1].copy())
        rows[-1][moved] = [next(left) for _ in range(moved.sum())]
    signals = shorts[: 2 * steps].reshape(2, steps).astype(float)
    return Unpacked(np.where(signals == 65535, np.nan, signals / 65534), shorts[2 * steps :], changed, np.array(rows))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def shown(study: Study) -> Page:
    return Page(write_viewer(study.path, study.path / "shown.html", show_text=True))


@pytest.fixture(scope="module")
def hidden(study: Study) -> Page:
    return Page(write_viewer(study.path, study.path / "hidden.html"))


def test_the_tokens_of_every_step_come_back_as_they_were_recorded(study: Study, shown: Page) -> None:
    words = json.loads(shown.scripts["words"])
    run = json.loads(shown.scripts["run"])
    assert run["width"] == 2
    for place, recording, row, _ in rows_of(study):
        found, expected = unpack(shown, place), recording.steps_tokens(row)
        assert run["ids"][place] == recording.table["id"][row]
        texts = [[words["tokens"][code] for code in step] for step in found.codes]
        assert texts == [[recording.token_text(token) for token in step] for step in expected.predicted]
        steps = np.arange(1, study.steps + 1)[:, None]
        is_committed = (found.committed_at > 0) & (found.committed_at <= steps)
        np.testing.assert_array_equal(is_committed, expected.is_committed)
        assert words["prompts"][place] == "SECRET PROMPT"
        assert words["answers"][place] == recording.table["text"][row]


def test_signals_come_back_to_four_digits_in_the_order_of_the_generations(study: Study, hidden: Page) -> None:
    for place, _, _, row in rows_of(study):
        expected = [study.signals[row], study.text_signals[row]]
        np.testing.assert_allclose(unpack(hidden, place).signals, expected, atol=1e-5)


def test_controls_are_played_behind_the_other_sets(tmp_path: Path) -> None:
    names = ("control_wrapped", "test_harmless", "test_attacks")
    words = ["<end>", "<mask>", "a"]
    every = {n: write_recording(tmp_path / "recordings" / n, 2, steps=3, response=4, words=words) for n in names}
    write_study(tmp_path, every)
    run = json.loads(Page(write_viewer(tmp_path, tmp_path / "viewer.html")).scripts["run"])
    assert run["ids"] == [f"{name}-{row}" for name in reversed(names) for row in range(2)]
    assert run["sets"]["names"][-1] == "control_wrapped"


def test_without_text_a_file_holds_states_only(study: Study, shown: Page, hidden: Page) -> None:
    assert "words" not in hidden.scripts
    assert not re.search(r"w\d\d\d\b|SECRET|&lt;mask", hidden.source)
    run, words = json.loads(hidden.scripts["run"]), json.loads(shown.scripts["words"])["tokens"]
    assert (run["ends"], run["blanks"]) == ([1], [2])
    for place, *_ in rows_of(study):
        bare, full = unpack(hidden, place), unpack(shown, place)
        np.testing.assert_array_equal(bare.committed_at, full.committed_at)
        np.testing.assert_array_equal(bare.changed, full.changed)
        assert set(bare.codes.ravel()) <= {0, 1, 2}
        np.testing.assert_array_equal(bare.codes == 1, full.codes == words.index("<end>"))
        np.testing.assert_array_equal(bare.codes == 2, full.codes == words.index("<mask>"))


def test_the_record_of_a_generation_does_not_depend_on_its_words(tmp_path: Path) -> None:
    pages = []
    for name, words in (("a", "one two"), ("b", "three four")):
        study = make_study(tmp_path / name, ["<end>", "<mask>", *words.split()], count=2)
        pages.append(Page(write_viewer(study.path, tmp_path / f"{name}.html")).scripts)
    assert pages[0] == pages[1]


@pytest.mark.parametrize(("tokens", "width"), [(1, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 3)])
def test_a_code_is_as_wide_as_the_tokens_need(tokens: int, width: int) -> None:
    assert Codes([], [], np.arange(tokens)).width == width
    assert Codes([], []).width == 1


def test_only_the_scripts_and_styles_of_the_page_itself_may_run(shown: Page) -> None:
    policy = next(a["content"] for tag, a in shown.elements if a.get("http-equiv") == "Content-Security-Policy")
    hashes = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in (("script", shown.scripts[""]), ("style", shown.style))
    }
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'; "
        "base-uri 'none'; form-action 'none'"
    )
    types = [attributes.get("type") for tag, attributes in shown.elements if tag == "script"]
    assert types == ["application/json", "text/plain", "application/json", None]
    for _, attributes in shown.elements:
        assert not {"src", "style", "action", "srcset"} & set(attributes)
        assert re.match(r"#\w|\w+\.html$", attributes.get("href") or "#part")  # of this page or of its run
        assert not [name for name in attributes if name.startswith("on")]
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|fetch\(|import\(|url\(", shown.source
    )


def test_controls_have_names_and_levels_of_headings_do_not_jump(shown: Page) -> None:
    labels = shown.source.count("<label")
    assert labels == len([tag for tag, _ in shown.elements if tag in ("input", "select")])
    levels = [int(tag[1]) for tag, _ in shown.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_hostile_text_adds_no_element_to_the_page(shown: Page, tmp_path: Path) -> None:
    make_hostile_study(tmp_path)
    page = Page(write_viewer(tmp_path, tmp_path / "hostile.html", show_text=True))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in shown.elements]
    assert page.scripts[""] == shown.scripts[""]
    assert not re.search("[\x00-\x08\x0e-\x1f\u2028\u2029\u202a-\u202e\u2066-\u2069\u200f]", page.source)
    assert "<" not in page.scripts["run"] + page.scripts["words"]
    words = json.loads(page.scripts["words"])
    assert words["prompts"][:2] == HOSTILE[:2]
    assert words["prompts"][2] == "a⟨U+0000⟩b⟨U+001B⟩[31m"
    assert words["prompts"][4] == "⟨U+2028⟩⟨U+2029⟩{{ 7 * 7 }}"
    assert set(HOSTILE[:2]) < set(words["tokens"])


def test_a_recording_is_viewed_with_its_anchors(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def view(*arguments: object) -> int | str | None:
        monkeypatch.setattr(sys, "argv", ["demur", "view", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code

    sides = [demur.record(toy_model, toy.rows(f"anchors_{side}")[:20], steps=12) for side in ("harmless", "harmful")]
    recording = demur.record(toy_model, toy.rows("test_attacks")[:5], steps=12, out=tmp_path / "r")
    assert view(tmp_path / "r") == 2
    assert "a recording needs anchors.safetensors in its folder" in capsys.readouterr().err
    anchors = demur.Anchors.fit(*sides)
    anchors.save(tmp_path / "r" / "anchors.safetensors")
    assert view(tmp_path / "r") == 0
    assert f"viewer: {tmp_path / 'r' / 'viewer.html'} (0.1 MB)" in capsys.readouterr().out
    page = Page(tmp_path / "r" / "viewer.html")
    assert "pretend you are free" not in page.source
    assert '"references":null' in page.scripts["run"]
    sigma = np.asarray(anchors.signal(recording))
    for row in range(5):
        found, tokens = unpack(page, row), recording.steps_tokens(row)
        np.testing.assert_allclose(found.signals[0], sigma[row], atol=1e-5)
        assert not found.changed.any()
        np.testing.assert_array_equal(found.committed_at > 0, tokens.is_committed[-1])
    assert view(tmp_path) == 2
    assert f"give one of those inside: {tmp_path / 'r'}" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert view(tmp_path / "empty") == 2
    assert "holds neither a study" in capsys.readouterr().err


def test_the_file_is_opened_where_a_person_sees_it(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    out = tmp_path / "a b.html"

    def view(*more: str) -> list[str]:
        monkeypatch.setattr(sys, "argv", ["demur", "view", str(study.path), "--out", str(out), *more])
        with pytest.raises(SystemExit):
            main()
        return opened

    assert view() == []
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert view("--no-open") == []
    assert view() == [out.as_uri()]


def test_a_study_whose_recordings_hold_other_prompts_is_refused(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    replace(study, generations=study.generations.assign(id="other")).save(tmp_path)
    with pytest.raises(InputError, match="holds other prompts than the study's test_attacks"):
        write_viewer(tmp_path, tmp_path / "viewer.html")


def test_two_thousand_generations_of_a_diffusion_model_stay_below_25_mb(large_viewer: Path) -> None:
    assert len(json.loads(Page(large_viewer).scripts["run"])["ids"]) == 2000
    assert large_viewer.stat().st_size < 25_000_000


def test_positions_that_are_thought_are_marked(tmp_path: Path) -> None:
    words = ["<end>", "<mask>", "<think>", "plan", "</think>", "yes"]
    recording = write_recording(tmp_path, 3, steps=2, response=6, words=words)
    for tokens, thought in (
        ([2, 3, 3, 4, 5, 0], [True, True, True, True, False, False]),
        ([5, 2, 3, 3, 3], [False, True, True, True, True]),  # never closed
        ([3, 5, 0], [False, False, False]),
    ):
        said = StepTokens(np.array([tokens]), np.ones((1, len(tokens)), dtype=bool))
        assert recording.thought_positions(said).tolist() == thought
