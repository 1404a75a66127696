"""`demur check`: a sound model passes, and every kind of broken one fails in the row that is about it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import broken
import demur
from demur.checks import Check, Row, check
from demur.checks.bench import Bench
from demur.errors import InputError
from demur.models import Model, load

TRUTH = ("prompt", "batch, shared", "batch, beyond the window", "generate", "states")


def row_of(found: Check, name: str) -> Row:
    return next(row for row in found.rows if row.name == name)


def outcomes(found: Check) -> dict[str, str]:
    return {row.name: row.outcome for row in found.rows}


@pytest.fixture(scope="module")
def whole(toy_folder: Path) -> Check:
    return check(toy_folder, device="cpu", minutes=5)


def test_a_sound_model_passes_every_row_that_its_kind_has(whole: Check) -> None:
    assert whole.ok and not whole.failed
    assert [name for name, outcome in outcomes(whole).items() if outcome == "not run"] == [
        "batch, beyond the window",
        "official code",
    ]
    assert row_of(whole, "states").numbers["distance"] < 1e-3
    assert row_of(whole, "generate").numbers["same"] == row_of(whole, "generate").numbers["rows"] == 12


def test_the_quick_check_is_short_and_says_so(toy_model: Model) -> None:
    found = demur.check(toy_model, quick=True)
    assert found.quick and found.ok
    assert tuple(outcomes(found)) == TRUTH


@pytest.mark.parametrize(
    ("make", "failing"),
    [
        (lambda: broken.leaking(broken.llama(), rows=3), {"batch, shared", "states"}),
        (lambda: broken.telling_other_states(broken.llama()), {"states"}),
        (lambda: broken.leaking(broken.diffusion(), rows=3), {"batch, shared", "states"}),
        (lambda: broken.telling_other_states(broken.diffusion()), {"states"}),
    ],
    ids=["leak", "other-states", "diffusion-leak", "diffusion-other-states"],
)
def test_a_broken_network_fails_where_it_is_broken(make: Callable[[], Model], failing: set[str]) -> None:
    found = check(make(), quick=True)
    assert not found.ok
    assert failing <= {row.name for row in found.failed}


@pytest.mark.parametrize(
    "make",
    [
        broken.llama,
        broken.gpt2,
        broken.windowed,
        broken.mamba,
        broken.diffusion,
        lambda: broken.without(broken.llama(), "attention_mask"),
        lambda: broken.without(broken.gpt2(), "position_ids"),
        lambda: broken.without(broken.diffusion(), "attention_mask"),
    ],
    ids=["llama", "gpt2", "windowed", "mamba", "diffusion", "no-mask", "no-positions", "diffusion-no-mask"],
)
def test_networks_that_demur_feeds_rightly_pass(make: Callable[[], Model]) -> None:
    found = check(make(), quick=True)
    assert found.ok, found.table.to_string()


def test_a_mask_that_never_reaches_the_blocks_fails_once_padding_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded without a proof that padding is neutral, as every batch once was."""
    whole = Bench.record

    def padded(bench: Bench, rows: list[list[int]], batch_size: int, **options: Any) -> Any:
        longest = max(map(len, rows)) if batch_size > 1 else 0
        return whole(bench, [[1] * (longest - len(row)) + row for row in rows], batch_size, **options)

    monkeypatch.setattr(Bench, "record", padded)
    found = check(broken.llama(), quick=True)
    assert {"batch, shared", "states"} <= {row.name for row in found.failed}


def test_a_short_prompt_is_put_beside_one_that_is_longer_than_the_window() -> None:
    row = row_of(check(broken.windowed(), quick=True), "batch, beyond the window")
    assert (row.outcome, row.numbers["rows"], row.numbers["same"]) == ("ok", 3, 3)
    assert "window of 64 tokens: 15, 22, 85 tokens" in row.measured


def test_options_of_loading_do_not_fit_a_loaded_model(toy_model: Model) -> None:
    with pytest.raises(InputError, match="dtype: are options of loading, but the model is loaded already"):
        check(toy_model, dtype="float32")


def test_a_model_that_is_not_there_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no such bundled model"):
        check("demur/none")


def test_load_is_what_the_check_checked(toy_folder: Path, whole: Check) -> None:
    assert whole.fingerprint == load(toy_folder, device="cpu").fingerprint
