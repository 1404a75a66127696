"""What several test files share, made once a session: the toy chat model, its prompt files, a large page.

Models and their libraries are imported by the fixtures that need them, so that one test file alone starts at once.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from filelock import FileLock

from long import is_long
from skips import unlisted

if TYPE_CHECKING:
    from demur.models import Model

LONGEST = ("test_pair.py", "test_paper.py", "test_demo.py", "test_diffusion_study.py", "test_viewer_in_browser.py")
"""Files that take minutes: two workers that begin with them end together."""


@pytest.hookimpl(tryfirst=True)  # before -m chooses by the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the long tests, and put the longest files first; the order is else as collected."""
    for item in items:
        if is_long(item):
            item.add_marker(pytest.mark.long)
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


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that `make` fills once a run, for all workers: the first that asks makes it, and others wait for it."""
    base = factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / name
    with FileLock(f"{folder}.lock"):
        if not folder.with_suffix(".made").exists():
            folder.mkdir()
            make(folder)
            folder.with_suffix(".made").touch()
    return folder


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import toy

    return made_once(tmp_path_factory, "toy", toy.save)


@pytest.fixture(scope="session")
def diffusion_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of the toy masked-diffusion model."""
    import toy_diffusion

    return made_once(tmp_path_factory, "toy-diffusion", toy_diffusion.save)


@pytest.fixture(scope="session")
def toy_study(toy_folder: Path, toy_prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small study of the toy model, made without a quick check; tests that change it copy it."""
    import demur
    from demur.studies import run_study

    def make(out: Path) -> None:
        run_study(demur.load(toy_folder, device="cpu"), toy_prompts, out, steps=6, limit=24, check=False)

    return made_once(tmp_path_factory, "toy-study", make)


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
