"""Overlap of the shipped training prompts and wrappers with prompt files that are for measuring.

In: JSONL prompt files. Out: for each file the whole prompts and the runs of eight words it shares with what ships, as
JSON on stdout; the exit code is 1 where anything is shared. Case, punctuation and white space make no difference.

    python benchmarks/overlap.py data/test_attacks.jsonl data/test_harmful.jsonl
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from demur.hardening import WRAPPERS, hardening_prompts, wrap
from demur.hardening.passages import passage_templates
from demur.prompts import Prompt

WORDS = 8
REQUEST = Prompt("probe", "zzrequest", "harmless")


def words_of(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def runs(words: tuple[str, ...]) -> set[tuple[str, ...]]:
    return {words[start : start + WORDS] for start in range(len(words) - WORDS + 1)}


def shipped(seeds: int) -> list[str]:
    """Every shipped prompt and passage, and every wrapper with `seeds` wordings around a word that occurs nowhere."""
    texts = [str(prompt.prompt) for prompt in hardening_prompts()]
    texts += [text for group in passage_templates().values() for text in group]
    for seed in range(seeds):
        texts += [str(prompt.prompt) for prompt in wrap([REQUEST], list(WRAPPERS), seed)]
    return texts


def texts_of(path: Path) -> Iterable[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield from (str(row[field]) for field in ("prompt", "goal") if row.get(field))


def overlap(path: Path, whole: set[tuple[str, ...]], parts: set[tuple[str, ...]]) -> dict[str, object]:
    theirs = [words_of(text) for text in texts_of(path)]
    shared = set().union(*map(runs, theirs)) & parts
    return {
        "file": path.name,
        "texts": len(theirs),
        "whole": sorted(" ".join(words) for words in set(theirs) & whole),
        "runs": sorted(" ".join(words) for words in shared),
    }


def main(paths: list[str], seeds: int = 200) -> int:
    if not paths:
        print("give prompt files (.jsonl) to compare with", file=sys.stderr)
        return 2
    mine = [words_of(text) for text in shipped(seeds)]
    found = [overlap(Path(path), set(mine), set().union(*map(runs, mine))) for path in paths]
    print(json.dumps({"words": WORDS, "shipped": len(mine), "files": found}, indent=1))
    return int(any(file["whole"] or file["runs"] for file in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
