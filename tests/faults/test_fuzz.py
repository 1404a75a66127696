"""Damaged files of every kind give the undamaged result or one clean error: 300 cases, or DEMUR_FUZZ_CASES."""

import os
from pathlib import Path

import pytest
from fuzz import Kind, tally
from kinds import every_kind

from made_up import make_study

CASES = int(os.environ.get("DEMUR_FUZZ_CASES", "300"))


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[Kind]:
    root = tmp_path_factory.mktemp("kinds")
    return every_kind(root / "kinds", make_study(root / "study").path)


def test_undamaged_files_are_read_alike_each_time(kinds: list[Kind]) -> None:
    for kind in kinds:
        assert kind.read(kind.folder) == kind.read(kind.folder)


def test_damage_is_refused_or_changes_nothing(kinds: list[Kind], tmp_path: Path) -> None:
    outcomes, findings = tally(kinds, CASES, tmp_path / "scratch")
    assert findings == []
    assert all(sum(counts.values()) > 0 for counts in outcomes.values())
    assert sum(counts["refused"] for counts in outcomes.values()) > CASES // 3
