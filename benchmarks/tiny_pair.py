"""Keep the scores of the bundled pair beside the other results: what `training/evaluate.py` wrote, as one JSON file.

python training/evaluate.py build/tiny/scores-0.json build/tiny/ar-0 build/tiny/diffusion-0 --blocks
python benchmarks/tiny_pair.py build/tiny/scores-0.json build/tiny/scores-1.json ...
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from machine import RESULTS, write_result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scores", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=RESULTS / "tiny-pair.json")
    given = parser.parse_args()
    rows = [row for path in given.scores for row in json.loads(path.read_text(encoding="utf-8"))]
    scored = "python training/evaluate.py SCORES.json AR-CHECKPOINT DIFFUSION-CHECKPOINT (--blocks for seed 0)"
    write_result(given.out, {"scores_command": scored, "rows": rows})


if __name__ == "__main__":
    main()
