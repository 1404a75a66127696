"""CPU seconds of a study's report by the number of its attacks: 25, 50, 100 and 200, of 20 made-up generations each.

The study is made up as the tests do it (`make_study` of `tests/test_report.py`), and its making is not timed: only
`write_report`, from tables in memory to the page. CPU seconds of this process, the least of three reports each, after
a first one that loads fonts.

    python benchmarks/report.py [--attacks 25 50 100 200] [--prompts 20] [--rounds 3]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from demur.report import write_report
from machine import RESULTS, write_result

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from test_report import make_study


def measure(counts: list[int], prompts: int, rounds: int) -> dict[str, Any]:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "report.html"
        write_report(make_study(attacks={"first": prompts}), page)
        for count in counts:
            study = make_study(attacks={f"attack {number}": prompts for number in range(count)})
            seconds = []
            for _ in range(rounds):
                began = time.process_time()
                write_report(study, page)
                seconds.append(time.process_time() - began)
            row = {"attacks": count, "generations": len(study.generations), "cpu_seconds": min(seconds)}
            found.append({**row, "rounds": seconds, "megabytes": page.stat().st_size / 1e6})
    last = {row["attacks"]: row["cpu_seconds"] for row in found}
    return {"reports": found, "ratio_of_the_last_two": last[counts[-1]] / last[counts[-2]]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attacks", type=int, nargs="+", default=[25, 50, 100, 200])
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "report.json")
    given = parser.parse_args()
    write_result(given.out, measure(given.attacks, given.prompts, given.rounds))


if __name__ == "__main__":
    main()
