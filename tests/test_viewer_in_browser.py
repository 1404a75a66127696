"""The step viewer in a browser: it plays what the file holds, by mouse and keyboard, and no text breaks it."""

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demur.recording import Recording
from demur.report import write_viewer
from demur.studies import Study
from made_up import END, HOSTILE, MASK, make_hostile_study, make_study

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def shown(study: Study) -> Path:
    return write_viewer(study.path, study.path / "shown.html", show_text=True)


@pytest.fixture(scope="module")
def hidden(study: Study) -> Path:
    return write_viewer(study.path, study.path / "hidden.html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_hostile_study(tmp_path_factory.mktemp("hostile")).path
    return write_viewer(folder, folder / "hostile.html", show_text=True)


@dataclass
class Tab:
    """An open page, and what went wrong on it."""

    page: Any
    faults: list[str]

    def open(self, path: Path, width: int = 1280, at: str = "") -> Any:
        self.page.set_viewport_size({"width": width, "height": 900})
        self.page.goto(path.as_uri() + (f"#{at}" if at else ""))
        self.page.wait_for_selector("#grid li")
        return self.page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: what the page does in a browser is not tested, what it holds is")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Tab]:
    page = browser.new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("dialog", lambda dialog: (faults.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda sent: None if sent.url.startswith("file:") else faults.append(sent.url))
    yield Tab(page, faults)
    page.close()


def overflows(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth > innerWidth"))


def test_the_grid_shows_the_state_and_token_of_every_position_at_every_step(
    study: Study, shown: Path, tab: Tab
) -> None:
    page = tab.open(shown, at="test_attacks-0")
    page.click("#reveal")
    page.keyboard.press("Home")
    recording = Recording(study.path / "recordings" / "test_attacks")
    predicted, is_committed = recording.steps_tokens(0)
    assert page.locator("#grid li.blank").count() == predicted.shape[1]
    for step in range(study.steps):
        page.keyboard.press("ArrowRight")
        cells = page.eval_on_selector_all("#grid li", "all => all.map(one => [one.className, one.textContent])")
        for position, (classes, text) in enumerate(cells):
            token = predicted[step, position]
            blank = not is_committed[step, position] and token == MASK
            state = "blank" if blank else "committed" if is_committed[step, position] else "predicted"
            assert state in classes.split()
            assert text == ("" if blank else "∎" if token == END else recording.token_text(token))
            moved = step > 0 and predicted[step - 1, position] != token
            assert ("changed" in classes.split()) == (moved and not blank)
            fresh = is_committed[step, position] and not (step and is_committed[step - 1, position])
            assert ("fresh" in classes.split()) == fresh
    assert tab.faults == []


def test_text_stands_on_the_page_only_after_it_was_asked_for(study: Study, shown: Path, tab: Tab) -> None:
    page = tab.open(shown)
    page.keyboard.press("End")
    assert not re.search(r"SECRET|w\d\d\d", page.inner_text("main"))
    assert not re.search(r"w\d\d\d", page.inner_html("#grid"))
    page.click("text=Show text")
    assert "SECRET PROMPT" in page.inner_text("main")
    assert re.search(r"w\d\d\d", page.inner_text("#grid"))
    page.click("text=Hide text")
    assert not re.search(r"SECRET|w\d\d\d", page.inner_text("main"))
    assert tab.faults == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_keyboard_moves_between_steps_and_generations(width: int, study: Study, hidden: Path, tab: Tab) -> None:
    page = tab.open(hidden, width, at="test_attacks-0")

    def now() -> tuple[str, str]:
        return page.inner_text("#name"), page.inner_text("#where")

    assert now() == ("test_attacks-0", "8 of 8")
    for key, expected in (
        ("Home", ("test_attacks-0", "0 of 8")),
        ("ArrowRight", ("test_attacks-0", "1 of 8")),
        ("End", ("test_attacks-0", "8 of 8")),
        ("ArrowLeft", ("test_attacks-0", "7 of 8")),
        ("Home", ("test_attacks-0", "0 of 8")),
        ("ArrowDown", ("test_attacks-1", "8 of 8")),
        ("j", ("test_attacks-2", "8 of 8")),
        ("k", ("test_attacks-1", "8 of 8")),
        ("ArrowUp", ("test_attacks-0", "8 of 8")),
        ("ArrowUp", ("test_attacks-0", "8 of 8")),
    ):
        page.keyboard.press(key)
        assert now() == expected
    page.select_option("#speed", "16")
    page.locator("#speed").blur()
    page.keyboard.press("Space")
    page.locator("#where", has_text="8 of 8").wait_for()
    assert page.inner_text("#play").strip() == "Play"
    page.focus("#slider")
    page.keyboard.press("ArrowLeft")
    assert now() == ("test_attacks-0", "7 of 8")
    assert not overflows(page)
    assert tab.faults == []


def test_every_control_is_reached_with_the_tab_key_and_shows_that_it_is(study: Study, hidden: Path, tab: Tab) -> None:
    page = tab.open(hidden)
    seen: list[str] = []
    while not seen or seen[-1] != "BODY":
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none" or seen[-1] == "BODY"
    expected = "search sets groups attacks verdicts list previous next before play after slider speed position".split()
    assert [name for name in seen if name in expected] == expected


def test_filters_narrow_the_list_and_say_how_many_are_left(study: Study, hidden: Path, tab: Tab) -> None:
    page = tab.open(hidden)
    rows = study.generations

    def left() -> int:
        found, total = page.inner_text("#count").split(" of ")
        assert total == "18"
        return int(found)

    assert left() == 18
    page.select_option("#sets", label="test_harmless")
    assert left() == 9
    page.keyboard.press("Escape")
    page.click("#next")
    assert page.inner_text("#name") == "test_harmless-0"
    page.select_option("#sets", "any")
    page.select_option("#attacks", label="pair")
    assert left() == 9
    page.select_option("#attacks", "any")
    for verdict, chosen in (
        ("refused", rows["refused"]),
        ("not refused", ~rows["refused"]),
        ("flagged", rows["flagged"]),
        ("flagged, not refused", rows["flagged"] & ~rows["refused"]),
    ):
        page.select_option("#verdicts", verdict)
        assert left() == chosen.sum()
    page.select_option("#verdicts", "any")
    page.fill("#search", "ATTACKS-7")
    assert left() == 1
    page.click("#rows .row")
    assert page.inner_text("#name") == "test_attacks-7"
    page.fill("#search", "nobody")
    assert left() == 0
    assert tab.faults == []


def test_the_chart_and_the_position_can_be_clicked(study: Study, hidden: Path, tab: Tab) -> None:
    page = tab.open(hidden, at="test_attacks-0")
    assert page.locator("#chart path.line").count() == 4
    assert "1 = complies, 0 = refuses" in page.inner_text("#chart")
    box = page.locator("#chart svg").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 92, box["y"] + 100)
    assert page.inner_text("#where") == "8 of 8"
    value = study.signals[study.generations["set"] == "test_attacks"][0, -1]
    assert page.inner_text("#reading") == f"Signal {value:.2f} at step 8."
    at = int(Recording(study.path / "recordings" / "test_attacks").steps_tokens(0).is_committed[:, 2].argmax()) + 1
    page.click("#grid li:nth-child(3)")
    assert f"committed at step {at}" in page.inner_text("#history")
    page.fill("#position", "21")
    assert "never committed" in page.inner_text("#history")
    assert tab.faults == []


@pytest.mark.parametrize("width", [1280, 390])
def test_the_guards_error_stands_beside_its_limit(width: int, study: Study, hidden: Path, tab: Tab) -> None:
    page = tab.open(hidden, width, at="test_attacks-0")
    rows = study.generations[study.generations["set"] == "test_attacks"]
    for error in rows["guard_error"]:
        said = page.inner_text("#guard-words")
        assert said.startswith(f"Error {error:.2f}, ")
        assert said.endswith("times the limit of 1.50.")
        assert page.locator("#guard .bar.over").count() == (error > 1.5)
        middle, end = page.evaluate(
            "['.limit', '.bar'].map(one => document.querySelector(`#guard ${one}`).getBoundingClientRect().right)"
        )
        assert (end > middle) == (error > 1.5)
        page.keyboard.press("j")
    assert not overflows(page)
    assert tab.faults == []


def test_a_generation_is_opened_by_its_id_in_the_address(study: Study, hidden: Path, tab: Tab) -> None:
    tab.page.goto(hidden.as_uri() + "#test_harmless-4")
    assert tab.page.inner_text("#name") == "test_harmless-4"


def test_the_viewer_opens_on_the_largest_fall_of_the_signal_at_its_last_step(
    study: Study, hidden: Path, tab: Tab
) -> None:
    page = tab.open(hidden)
    falls = (np.maximum.accumulate(study.signals, axis=1) - study.signals).max(axis=1)
    rows = study.generations
    assert page.inner_text("#name") == rows["id"].iloc[int(falls.argmax())]
    assert page.inner_text("#where") == "8 of 8"
    page.select_option("#sorts", "largest fall of the signal first")
    order = rows["id"].iloc[np.argsort(-falls.round(4), kind="stable")].tolist()
    assert page.locator("#rows .row bdi").first.inner_text() == order[0]
    page.select_option("#sorts", "highest guard error first")
    best = rows.loc[rows["id"] == page.locator("#rows .row bdi").first.inner_text(), "guard_error"].item()
    assert best == rows["guard_error"].max()
    assert tab.faults == []


def test_generation_step_and_shown_text_stay_in_the_address(shown: Path, tab: Tab) -> None:
    page = tab.open(shown, at="test_harmless-4")
    page.click("#reveal")
    page.keyboard.press("j")
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(1000)  # the address follows once nothing has moved for a moment
    assert page.evaluate("location.hash") == "#test_harmless-5&step=7&text"
    page.reload()
    page.wait_for_selector("#grid li")
    assert page.inner_text("#name") == "test_harmless-5"
    assert page.inner_text("#where") == "7 of 8"
    assert "SECRET PROMPT" in page.inner_text("#prompt")
    assert tab.faults == []


def test_prompts_are_listed_and_searched_only_while_text_is_shown(shown: Path, tab: Tab) -> None:
    page = tab.open(shown)
    page.fill("#search", "secret")
    assert page.inner_text("#count") == "0 of 18"
    page.click("#reveal")
    assert page.inner_text("#count") == "18 of 18"
    assert page.locator("#rows .row bdi").first.inner_text() == "SECRET PROMPT"
    page.click("#reveal")
    assert page.inner_text("#count") == "0 of 18"
    assert tab.faults == []


def test_the_picture_of_all_steps_goes_to_the_step_and_position_that_is_clicked(hidden: Path, tab: Tab) -> None:
    page = tab.open(hidden, at="test_attacks-0")
    canvas = page.locator("#whole canvas")
    assert page.evaluate("[...document.querySelectorAll('#whole canvas')].map(one => [one.width, one.height])") == [
        [8, 21]
    ]
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 2.5 / 8, box["y"] + box["height"] * 4.5 / 21)
    assert page.inner_text("#where") == "3 of 8"
    assert page.input_value("#position") == "5"
    assert tab.faults == []


@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_text_does_nothing_to_the_page(width: int, hostile: Path, tab: Tab) -> None:
    page = tab.open(hostile, width)
    page.evaluate("document.getElementById('choose').open = true")
    page.click("#reveal")
    for _ in HOSTILE * 2:
        page.keyboard.press("End")
        assert not overflows(page)
        assert page.evaluate("document.querySelectorAll('img, iframe, main script').length") == 0
        assert page.evaluate("document.scripts.length") == 4
        page.click("#next")
    assert tab.faults == []
    page.evaluate(
        "const s = document.createElement('script'); s.textContent = 'window.hit = 1'; document.body.append(s)"
    )
    assert page.evaluate("window.hit") is None


def test_a_large_file_opens_soon(large_viewer: Path, tab: Tab) -> None:
    began = time.perf_counter()
    page = tab.open(large_viewer, at="test_attacks-0")
    seconds = time.perf_counter() - began
    assert page.locator("#rows .row").count() < 40
    page.keyboard.press("j")
    assert page.inner_text("#name") == "test_attacks-1"
    assert tab.faults == []
    assert seconds < 20, "under 2 s on an idle machine"
