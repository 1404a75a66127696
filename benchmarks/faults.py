"""What damage does: seeded cases of the fuzzer in `tests/faults` by kind of file, kills, faults of the disk, limits.

    python benchmarks/faults.py [--cases 3000] [--seed 0] [--step 1] [--out benchmarks/results/faults.json]

Out: a JSON file with the counts of each outcome and, where there is one, every finding and how to repeat it; the
numbers of kills and faults that the other tests there tried; and how the time of a report grows with the attacks.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "faults")]

from fuzz import LIMIT, tally  # noqa: E402 - from the tests' folder
from kinds import every_kind  # noqa: E402

import demur  # noqa: E402
from demur.report import write_report  # noqa: E402
from made_up import make_study  # noqa: E402
from test_report import make_study as make_whole_study  # noqa: E402

NAMES = ("kills", "faults", "refused", "limits")
"""Counts that the tests record: kills, faults of the disk, how many of those were refused, and limits of the system."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--step", type=int, default=1, help="every how many file operations one is disturbed")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "faults.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        kinds = every_kind(root / "kinds", make_study(root / "study").path)
        started = time.monotonic()
        outcomes, findings = tally(kinds, given.cases, root / "scratch", given.seed)
        seconds = round(time.monotonic() - started)
        growth = report_seconds(root / "reports")
        tried = disturbed(root / "tests.xml", given.step)
    total: Counter[str] = sum(outcomes.values(), Counter())
    names = ("refused", "same", "valid", "finding")
    found = {
        "command": f"python benchmarks/faults.py --cases {given.cases} --seed {given.seed} --step {given.step}",
        "demur": demur.__version__,
        "cases": given.cases,
        "limit of each in seconds": LIMIT,
        "seconds": seconds,
        "outcomes": {name: total[name] for name in names},
        "kinds": {kind: {name: counts[name] for name in names} for kind, counts in outcomes.items()},
        "findings": findings,
        "kills, faults of the disk and limits": tried,
        "seconds of a report by attacks": growth,
    }
    given.out.write_text(json.dumps(found, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")
    print(json.dumps(found["outcomes"]))
    return bool(findings or tried["failed"])


def disturbed(log: Path, step: int) -> dict[str, int]:
    """The tests of `tests/faults` besides the fuzzer, in a process of their own: what they tried, and what failed."""
    environment = {**os.environ, "DEMUR_CRASH_STEP": str(step)}
    files = [path for path in sorted((ROOT / "tests" / "faults").glob("test_*.py")) if path.name != "test_fuzz.py"]
    subprocess.run([sys.executable, "-m", "pytest", "-q", *files, f"--junitxml={log}"], cwd=ROOT, env=environment)
    suite = ElementTree.parse(log).getroot()
    counts: Counter[str] = Counter()
    for one in suite.iter("property"):
        counts[str(one.get("name"))] += int(str(one.get("value")))
    cases = list(suite.iter("testcase"))
    failed = sum(one.find("failure") is not None or one.find("error") is not None for one in cases)
    return {"step": step, **{name: counts[name] for name in NAMES}, "tests": len(cases), "failed": failed}


def report_seconds(root: Path) -> dict[str, float]:
    """Processor seconds that a report takes, by the number of attacks, with five generations of each."""
    found = {}
    for attacks in (50, 100, 200):
        study = make_whole_study(attacks={f"attack {number}": 5 for number in range(attacks)})
        (root / str(attacks)).mkdir(parents=True)
        started = time.process_time()
        write_report(study, root / str(attacks) / "report.html")
        found[str(attacks)] = round(time.process_time() - started, 2)
    return found


if __name__ == "__main__":
    sys.exit(main())
