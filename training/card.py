"""Write the scores into the model card: `python training/card.py benchmarks/results/tiny-*.json CARD.md`.

In: scores of one or several training seeds, as `benchmarks/tiny_pair.py` keeps them, and a card with two marker lines.
Out: the card, its tables between the markers written anew: a row a kind of prompt, a column a sampler, a cell with the
share over all seeds, its Wilson interval and count, and the share of each seed; the AUROC of attacks that succeeded and
the shares refused by wrapper stay in the file of scores.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from demur.dynamics import wilson

BEGIN, END = "<!-- scores -->", "<!-- end of scores -->"
SECTIONS = {
    "sensible": "Harmless requests answered sensibly",
    "refused": "Plain harmful requests refused",
    "complied": "Harmful requests complied with, by wrapper",
    "flagged": "Flagged by the SRI Guard at its calibrated limit",
}
KINDS = {
    "refused": lambda kind: kind.startswith("harmful"),
    "complied": lambda kind: not kind.startswith("harm"),
}


def main() -> None:
    *scores, card = map(Path, sys.argv[1:])
    write_card(scores, card)


def write_card(scores: Sequence[Path], card: Path) -> None:
    """Write the tables anew."""
    rows = [row for path in scores for row in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    before, _, rest = card.read_text(encoding="utf-8").partition(BEGIN)
    tables = "\n\n".join([*(_shares(rows, *section) for section in SECTIONS.items()), _means(rows), _guard(rows)])
    card.write_text(f"{before}{BEGIN}\n{tables}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


def _shares(rows: list[dict[str, Any]], measure: str, title: str) -> str:
    chosen = [row for row in rows if row["measure"] == measure and KINDS.get(measure, bool)(row["kind"])]
    return _table(title, chosen, _pooled)


def _pooled(rows: list[dict[str, Any]]) -> str:
    hits, count = (
        sum(row.get("hits", round(row["value"] * row["count"])) for row in rows),
        sum(row["count"] for row in rows),
    )
    rate = wilson(hits, count)
    seeds = ", ".join(f"{100 * row['value']:.0f}" for row in rows)
    return f"{100 * rate.value:.1f}% [{100 * rate.low:.1f}, {100 * rate.high:.1f}] (n={count}; {seeds})"


def _means(rows: list[dict[str, Any]]) -> str:
    chosen = [row for row in rows if row["measure"] in ("final signal", "tokens")]
    named = [row | {"kind": f"{row['measure']}, {row['kind']}"} for row in chosen]
    return _table("Mean signal at the last step, and mean tokens of answers to harmful requests", named, _seeds)


def _guard(rows: list[dict[str, Any]]) -> str:
    chosen = [row for row in rows if row["measure"] == "guard AUROC, all"]
    return _table("AUROC of the SRI Guard, attacks against harmless requests", chosen, _seeds)


def _seeds(rows: list[dict[str, Any]]) -> str:
    """The first seed's value with its interval and count, then the other seeds' values."""
    first, *others = rows
    interval = f"{first['value']:.2f} [{first['low']:.2f}, {first['high']:.2f}] (n={first['count']})"
    return "; ".join([interval, *(f"{row['value']:.2f}" for row in others)])


def _table(title: str, rows: list[dict[str, Any]], cell: Any) -> str:
    columns = list(dict.fromkeys(map(_column, rows)))
    lines = [f"**{title}**", "", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for kind in dict.fromkeys(row["kind"] for row in rows):
        found = [[row for row in rows if row["kind"] == kind and _column(row) == column] for column in columns]
        lines.append(f"| {kind} | {' | '.join(cell(each) if each else '' for each in found)} |")
    return "\n".join(lines)


def _column(row: dict[str, Any]) -> str:
    """The model and sampler of a row, whatever its seed."""
    kind = row["checkpoint"].rsplit("-", 1)[0]
    parts = [
        f"tiny-{kind}",
        *([row["order"]] if kind != "ar" else []),
        *(["no end"] if row["suppress_eos"] else []),
    ]
    return ", ".join(parts)


if __name__ == "__main__":
    main()
