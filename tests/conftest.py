"""What several test files share, made once a session: the toy chat model, its prompt files, a large page.

Models and their libraries are imported by the fixtures that need them, so that one test file alone starts at once.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from skips import unlisted

if TYPE_CHECKING:
    from demur.models import Model

LONGEST = ("test_pair.py", "test_paper.py", "test_demo.py", "test_diffusion_study.py", "test_viewer_in_browser.py")
"""Files that take minutes: two workers that begin with them end together."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order is else as collected."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


_SKIPPED: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember why a test was skipped."""
    _remember(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """Remember why a whole file was skipped."""
    _remember(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run under CI=true in which a test was skipped without a listed reason."""
    is_worker = hasattr(session.config, "workerinput")  # of pytest-xdist, whose controller sees all reports
    if os.environ.get("CI") == "true" and not is_worker and unlisted(_SKIPPED) and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that were skipped without a listed reason."""
    if os.environ.get("CI") == "true" and (found := unlisted(_SKIPPED)):
        terminalreporter.section("skipped without a listed reason (tests/skips.py)", red=True)
        for line in found:
            terminalreporter.line(line)


def _remember(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _SKIPPED[report.nodeid] = reason.removeprefix("Skipped: ")


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import toy

    return toy.save(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def toy_model(toy_folder: Path) -> Model:
    from demur.models import load

    return load(toy_folder, device="cpu")


@pytest.fixture(scope="session")
def toy_prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import toy
    from demur.studies import PROMPT_SETS

    return toy.write_prompts(tmp_path_factory.mktemp("prompts"), list(PROMPT_SETS))


@pytest.fixture(scope="session")
def large_viewer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 2,000 generations of 32 steps and 128 positions, with text; half of what is open always changes."""
    import made_up
    from demur.report import write_viewer

    folder = tmp_path_factory.mktemp("large")
    words = ["<end>", "<mask>", *(f"word{n}" for n in range(50_000))]
    made_up.make_study(folder, words, count=1000, steps=32, response=128)
    return write_viewer(folder, folder / "large.html", show_text=True)
