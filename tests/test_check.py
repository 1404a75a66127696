"""`demur check`: a sound model passes, and every kind of broken one fails in the row that is about it."""

from collections.abc import Callable
from pathlib import Path

import pytest

import broken
import demur
from demur.checks import Check, Row, check
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
        (lambda: broken.without(broken.llama(), "attention_mask"), {"batch, shared", "states"}),
        (lambda: broken.without(broken.gpt2(), "position_ids"), {"batch, shared", "states"}),
        (lambda: broken.leaking(broken.llama()), {"batch, shared", "states"}),
        (lambda: broken.telling_other_states(broken.llama()), {"states"}),
        (lambda: broken.without(broken.diffusion(), "attention_mask"), {"batch, shared", "states"}),
        (lambda: broken.leaking(broken.diffusion()), {"batch, shared", "states"}),
    ],
    ids=["no-mask", "no-positions", "leak", "other-states", "diffusion-no-mask", "diffusion-leak"],
)
def test_a_broken_network_fails_where_it_is_broken(make: Callable[[], Model], failing: set[str]) -> None:
    found = check(make(), quick=True)
    assert not found.ok
    assert failing <= {row.name for row in found.failed}


@pytest.mark.parametrize("make", [broken.llama, broken.gpt2, broken.diffusion], ids=["llama", "gpt2", "diffusion"])
def test_the_same_networks_unbroken_pass(make: Callable[[], Model]) -> None:
    found = check(make(), quick=True)
    assert found.ok, found.table.to_string()


def test_a_short_prompt_is_put_beside_one_that_is_longer_than_the_window() -> None:
    row = row_of(check(broken.windowed(), quick=True), "batch, beyond the window")
    assert row.numbers["rows"] == 3
    assert "window of 64 tokens: 15, 22, 85 tokens" in row.measured


def test_options_of_loading_do_not_fit_a_loaded_model(toy_model: Model) -> None:
    with pytest.raises(InputError, match="dtype: are options of loading, but the model is loaded already"):
        check(toy_model, dtype="float32")


def test_a_model_that_is_not_there_is_an_input_error() -> None:
    with pytest.raises(InputError, match="no such bundled model"):
        check("demur/none")


def test_load_is_what_the_check_checked(toy_folder: Path, whole: Check) -> None:
    assert whole.fingerprint == load(toy_folder, device="cpu").fingerprint
