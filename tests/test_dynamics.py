"""Rates against closed forms, hand-made trajectories and scipy's interval."""

import math
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from demur.dynamics import (
    Rate,
    attack_success_rate,
    full_recovery_rate,
    harmful_remasking_rate,
    internal_recovery_rate,
    internal_recovery_rates_by,
    rates_by,
    refusal_rate,
    wilson,
)
from demur.errors import InputError


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("count", [1, 2, 7, 100, 10_000])
def test_wilson_is_scipys_interval(count: int, confidence: float) -> None:
    for hits in {0, 1, count // 3, count - 1, count}:
        rate = wilson(hits, count, confidence)
        expected = binomtest(hits, count).proportion_ci(confidence, method="wilson")
        assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert rate.value == hits / count and (rate.count, rate.hits) == (count, hits)


def test_no_case_gives_no_value_and_the_whole_interval() -> None:
    rate = wilson(0, 0)
    assert math.isnan(rate.value) and (rate.low, rate.high, rate.count) == (0, 1, 0)


@pytest.mark.parametrize("arguments", [(3, 2), (-1, 2), (0, -1), (1, 2, 0.0), (1, 2, 1.0), (1, 2, 95)])
def test_wilson_refuses_what_is_no_share(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InputError, match="expected"):
        wilson(*arguments)


def test_a_rate_prints_with_its_interval_and_count() -> None:
    assert str(wilson(46, 100)) == "0.46 [0.37, 0.56] (n=100)"


@pytest.mark.parametrize("rate", [refusal_rate, attack_success_rate])
@pytest.mark.parametrize(
    "kind", [list, np.array, lambda v: pd.array(v, dtype="boolean"), pd.Series, lambda v: np.array(v, int)]
)
def test_a_rate_is_the_share_of_true_verdicts(rate: Any, kind: Any) -> None:
    assert rate(kind([True, False, True, True])) == wilson(3, 4)


@pytest.mark.parametrize("absent", [None, np.nan, pd.NA])
def test_a_missing_verdict_is_refused_or_left_out_when_asked(absent: Any) -> None:
    verdicts = [True, absent, False]
    with pytest.raises(InputError, match=r"lacks a verdict for 1 of 3 generations \(the first is 1\)"):
        refusal_rate(verdicts)
    assert refusal_rate(verdicts, missing="exclude") == wilson(1, 2)


@pytest.mark.parametrize("verdicts", [[0.5, 1.0], ["yes"], [2, 0], [[True]], True])
def test_what_is_no_verdict_is_refused(verdicts: Any) -> None:
    with pytest.raises(InputError, match=r"refused (holds|has shape)"):
        refusal_rate(verdicts)


def test_a_word_other_than_error_or_exclude_is_refused() -> None:
    with pytest.raises(InputError, match="missing is 'drop'"):
        refusal_rate([True], missing="drop")  # type: ignore[arg-type]


SIGMA = np.array(
    [
        [0.9, 0.9, 0.05],  # recovers at every level
        [0.6, 0.1, 0.2],  # recovers below 0.5 and 0.3
        [0.1, 0.5, 0.2],  # never above 0.5
        [0.1, 0.2, 0.9],  # above only at the last step
        [0.9, 0.2, 0.3],  # ends at a level, not under it
    ]
)


@pytest.mark.parametrize(("refusal", "hits"), [(0.5, 3), (0.3, 2), (0.1, 1)])
def test_internal_recovery_is_compliance_before_and_refusal_at_the_last_step(refusal: float, hits: int) -> None:
    assert internal_recovery_rate(SIGMA, compliance=0.5, refusal=refusal) == wilson(hits, 5)


def test_a_single_step_cannot_recover() -> None:
    assert internal_recovery_rate([[0.1], [0.9]]).value == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -0.1, 1.1])
def test_a_signal_out_of_range_is_named(wrong: float) -> None:
    sigma = SIGMA.copy()
    sigma[3, 1] = wrong
    with pytest.raises(InputError, match=rf"sigma is {wrong} at \(3, 1\)"):
        internal_recovery_rate(sigma)


def test_a_signal_of_the_wrong_shape_is_named() -> None:
    with pytest.raises(InputError, match=r"sigma has shape \(3,\)"):
        internal_recovery_rate([0.1, 0.2, 0.3])


def test_remasking_and_recovery_follow_their_definitions_for_every_trajectory() -> None:
    every = np.array(list(product([False, True], repeat=5)))
    eligible = [h for h in every if any(h[:-1])]
    remasked = [any(h[t] and not h[s] for t in range(4) for s in range(t + 1, 5)) for h in eligible]
    recovered = [not h[-1] for h in eligible]
    assert harmful_remasking_rate(every) == wilson(sum(remasked), len(eligible))
    assert full_recovery_rate(every) == wilson(sum(recovered), len(eligible))


def test_generations_that_were_never_harmful_before_the_end_do_not_count() -> None:
    harmful = [[False, False, True], [False, False, False]]
    assert harmful_remasking_rate(harmful).count == full_recovery_rate(harmful).count == 0


def test_a_generation_with_a_missing_step_is_left_out_whole() -> None:
    harmful = [[True, None, False], [True, True, True]]
    with pytest.raises(InputError, match="1 of 2 generations"):
        full_recovery_rate(harmful)
    assert full_recovery_rate(harmful, missing="exclude") == wilson(0, 1)


TABLE = pd.DataFrame(
    {
        "attack": ["pair", "flip", "pair", None, "flip"],
        "model": ["a", "a", "a", "a", "b"],
        "refused": pd.array([True, False, False, True, None], dtype="boolean"),
    }
)


def test_rates_by_group_come_in_order_of_appearance_with_counts() -> None:
    found = rates_by(TABLE, "refused", "attack", missing="exclude")
    assert list(found.columns) == ["attack", "value", "low", "high", "count", "hits"]
    assert found["attack"].iloc[:2].tolist() == ["pair", "flip"] and pd.isna(found["attack"].iloc[2])
    assert [Rate(*row) for row in found.iloc[:, 1:].itertuples(index=False)] == [
        wilson(1, 2),
        wilson(0, 1),
        wilson(1, 1),
    ]


def test_a_group_without_verdicts_has_no_value() -> None:
    found = rates_by(TABLE, "refused", ["attack", "model"], missing="exclude").iloc[-1]
    assert (found["attack"], found["model"], found["count"]) == ("flip", "b", 0) and np.isnan(found["value"])


def test_rates_by_nothing_is_one_row_and_a_missing_verdict_is_named_by_its_row() -> None:
    assert len(rates_by(TABLE, "refused", missing="exclude")) == 1
    with pytest.raises(InputError, match="the first is 4"):
        rates_by(TABLE, "refused", "attack")


def test_rates_by_a_function_reads_arrays_beside_the_table() -> None:
    harmful = np.array([[1, 0], [1, 1], [1, 1], [0, 0], [1, 0]], dtype=bool)
    found = rates_by(TABLE, lambda rows: full_recovery_rate(harmful[rows]), "attack")
    assert found["value"].iloc[:2].tolist() == [0.5, 0.5] and found["count"].tolist() == [2, 2, 0]


def test_internal_recovery_by_group_has_a_row_for_every_level() -> None:
    found = internal_recovery_rates_by(SIGMA, TABLE, "model")
    assert list(found.columns) == ["model", "refusal", "value", "low", "high", "count", "hits"]
    assert found.set_index(["model", "refusal"])["value"].to_dict() == {
        ("a", 0.5): 0.5, ("b", 0.5): 1.0, ("a", 0.3): 0.5, ("b", 0.3): 0.0, ("a", 0.1): 0.25, ("b", 0.1): 0.0
    }  # fmt: skip


def test_a_column_or_rows_that_are_not_there_are_named() -> None:
    with pytest.raises(InputError, match="no column harmful, kind; it has attack, model, refused"):
        rates_by(TABLE, "refused", ["harmful", "kind"])
    with pytest.raises(InputError, match="sigma has 3 rows and the table 5"):
        internal_recovery_rates_by(SIGMA[:3], TABLE)
