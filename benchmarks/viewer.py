"""How large the step viewer's file is and how soon a browser has opened it: 2,000 made-up generations of 32 steps.

Every generation has 128 positions, and at every step half of those that are open change. The recordings are those of
the tests (`tests/made_up.py`), written as `demur record` leaves them. Opened means that the first token grid is on the
page, in a new tab of a headless Chromium that runs already; medians over rounds, with and without text in turn.

    python benchmarks/viewer.py [--count 2000] [--rounds 5]
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import sync_playwright

from demur.report import write_viewer
from machine import RESULTS, write_result

sys.path.append(str(Path(__file__).parents[1] / "tests"))
import made_up

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
CALLS = {False: "without_text", True: "with_text"}


def measure(count: int, steps: int, positions: int, rounds: int) -> dict[str, Any]:
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    words = ["<end>", "<mask>", *(f"word{n}" for n in range(50_000))]
    opened: dict[bool, list[float]] = {show: [] for show in CALLS}
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        path = Path(folder)
        made_up.make_study(path, words, count=count // 2, steps=steps, response=positions)
        pages = {show: write_viewer(path, path / f"{name}.html", show_text=show) for show, name in CALLS.items()}
        chromium = driver.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for _ in range(rounds + 1):
            for show, page in pages.items():
                tab = chromium.new_page()
                began = time.perf_counter()
                tab.goto(page.as_uri())
                tab.wait_for_selector("#grid li")
                opened[show].append(time.perf_counter() - began)
                tab.close()
        version = chromium.version
        chromium.close()
        sizes = {name: pages[show].stat().st_size / 1e6 for show, name in CALLS.items()}
    return {
        "generations": count,
        "steps": steps,
        "positions": positions,
        "chromium": version,
        "megabytes": sizes,
        "seconds_to_open": {name: median(opened[show][1:]) for show, name in CALLS.items()},
        "rounds": {name: opened[show][1:] for show, name in CALLS.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--positions", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "viewer.json")
    given = parser.parse_args()
    write_result(given.out, measure(given.count, given.steps, given.positions, given.rounds))


if __name__ == "__main__":
    main()
