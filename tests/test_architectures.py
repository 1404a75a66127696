"""Batches on tiny random networks of every architecture, against one plain pass of transformers a row."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
architectures = importlib.import_module("architectures")
sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def table() -> dict[str, str]:
    """The outcome of each architecture as the page of the docs has it."""
    rows = [line.split("|") for line in architectures.PAGE.read_text().splitlines() if line.startswith("| ")]
    return {cells[1].strip(): cells[2].strip() for cells in rows[1:]}


QUICK = {"gemma3_text", "gpt2", "llama", "mamba", "mixtral", "qwen2", "qwen3", "rwkv"}
"""What most checkpoints are, and one of each kind of state."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else pytest.mark.long) for n in sorted(architectures.ARCHITECTURES)],
)
def test_an_architecture_is_followed_exactly_or_refused_as_the_docs_say(name: str, table: dict[str, str]) -> None:
    outcome = architectures.check(name)  # differing tokens or states are its own errors
    expected = f"refused: {outcome.refused}" if outcome.refused else "works"
    assert table[name] == expected


def test_the_docs_name_every_architecture_that_is_checked(table: dict[str, str]) -> None:
    assert sorted(table) == sorted(architectures.ARCHITECTURES)
