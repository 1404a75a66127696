"""Keep the tables of the protocol beside the other results, as one JSON file.

demur study paper --models MODEL --out runs/paper --prompts PROMPTS --batch-size 32
python benchmarks/paper.py runs/paper --out benchmarks/results/paper-NAME.json \\
        --made-by "demur study paper --models MODEL --out runs/paper --prompts PROMPTS --batch-size 32"
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from machine import write_result
from study import rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--made-by", required=True, help="the `demur study paper` command that made it")
    given = parser.parse_args()
    tables = {path.stem: pd.read_parquet(path) for path in sorted((given.run / "tables").glob("*.parquet"))}
    kept = {name: rows(table.assign(model=table["model"].map(_name)), 6) for name, table in tables.items()}
    write_result(given.out, {"paper_command": given.made_by, "tables": kept})


def _name(model: str) -> str:
    return Path(model).name


if __name__ == "__main__":
    main()
