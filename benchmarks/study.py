"""Keep the results of a study beside the other results: the tables of `demur study` as one JSON file.

demur study MODEL --out runs/NAME --prompts PROMPTS --batch-size 32
python benchmarks/study.py runs/NAME --out benchmarks/results/study-NAME.json \\
        --made-by "demur study MODEL --out runs/NAME --prompts PROMPTS --batch-size 32"
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.studies import read_study
from machine import write_result

if TYPE_CHECKING:
    import pandas as pd

HARDENED = ("hardening", "hardening_left_out")
"""Tables of a study with --harden."""

KEPT = ("sampler", "layers", "chat_format", "versions", "counts", "prompts", "anchors", "guard", "tau", "compliance")


def rows(table: pd.DataFrame, digits: int = 4) -> list[dict[str, Any]]:
    """A table as JSON rows, numbers rounded, missing ones null."""
    found: list[dict[str, Any]] = json.loads(table.round(digits).to_json(orient="records"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--made-by", required=True, help="the `demur study` command that made it")
    given = parser.parse_args()
    study = read_study(given.study)
    made = {
        name: study.settings[name]
        for name in (*KEPT, "fingerprint", "limit", "seed", "hardening")
        if name in study.settings
    }
    write_result(
        given.out,
        {
            "study_command": given.made_by,
            "model": Path(study.settings["model"]).name,
            "settings": made,
            "rates": rows(study.rates),
            "detection": rows(study.detection),
            "false_positives": rows(study.false_positives),
            "controls": rows(study.controls),
            "correlations": rows(study.correlations),
            "streaming": rows(study.streaming),
            **{name: rows(study.tables[name]) for name in HARDENED if name in study.tables},
        },
    )


if __name__ == "__main__":
    main()
