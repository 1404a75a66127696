"""The refusal dictionary against the verdicts of the authors' released judge."""

import json
from pathlib import Path

import pytest

from demur.judges import REFUSAL_DICTIONARY, refused

ROWS = json.loads((Path(__file__).parent / "fixtures" / "refusal_judge.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("row", ROWS, ids=[f"{row['id']}-{row['note']}" for row in ROWS])
def test_verdict_is_that_of_the_released_judge(row: dict[str, object]) -> None:
    assert refused(str(row["text"])) is row["refusal"]


@pytest.mark.parametrize("entry", REFUSAL_DICTIONARY)
def test_every_entry_refuses_in_any_case_and_with_curly_quotes(entry: str) -> None:
    assert refused(f"Well: {entry.upper().replace(chr(39), chr(0x2019))}.")


@pytest.mark.parametrize("entry", [entry for entry in REFUSAL_DICTIONARY if " " not in entry])
def test_no_word_refuses_inside_a_longer_one(entry: str) -> None:
    assert not refused(f"x{entry}") and not refused(f"{entry}x")


def test_the_dictionary_has_the_entries_of_the_paper() -> None:
    assert len(REFUSAL_DICTIONARY) == len(set(REFUSAL_DICTIONARY)) == 31
