"""What damaged files do: thousands of seeded cases of the fuzzer in `tests/faults`, counted by kind of file.

    python benchmarks/faults.py [--cases 3000] [--seed 0] [--out benchmarks/results/faults.json]

Out: a JSON file with the counts of each outcome and, where there is one, every finding and how to repeat it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "faults")]

from fuzz import LIMIT, tally  # noqa: E402 - from the tests' folder
from kinds import every_kind  # noqa: E402

import demur  # noqa: E402
from made_up import make_study  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "faults.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        kinds = every_kind(root / "kinds", make_study(root / "study").path)
        started = time.monotonic()
        outcomes, findings = tally(kinds, given.cases, root / "scratch", given.seed)
    total: Counter[str] = sum(outcomes.values(), Counter())
    names = ("refused", "same", "valid", "finding")
    found = {
        "command": f"python benchmarks/faults.py --cases {given.cases} --seed {given.seed}",
        "demur": demur.__version__,
        "cases": given.cases,
        "limit of each in seconds": LIMIT,
        "seconds": round(time.monotonic() - started),
        "outcomes": {name: total[name] for name in names},
        "kinds": {kind: {name: counts[name] for name in names} for kind, counts in outcomes.items()},
        "findings": findings,
    }
    given.out.write_text(json.dumps(found, indent=2, ensure_ascii=True) + "\n", encoding="utf-8")
    print(json.dumps(found["outcomes"]))
    return bool(findings)


if __name__ == "__main__":
    sys.exit(main())
