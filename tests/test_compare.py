"""Comparing runs: the statistics against closed forms, prompts matched one by one, and a page that holds it all."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from demur import InputError
from demur.dynamics import internal_recovery_rate, wilson
from demur.judges import Verdict
from demur.report import comparison_figure, write_comparison
from demur.studies import Comparison, Study, compare_runs
from demur.studies.compare.paired import bootstrap_mean, mcnemar, paired_difference

SAMPLER = {"name": "MaskedDiffusion", "steps": 4, "order": "confidence", "suppress_eos": False, "seed": 0}
RECOVERY = {"rate": "HRR (complies)", "group": "wrap", "threshold": np.nan, "value": 0.5, "low": 0.1, "high": 0.9}
N = 40


def make_study(folder: Path, *, refusals: int = 20, seed: int = 0, **sampler: Any) -> Study:
    """A saved study of N harmless, N plain harmful and N attacked prompts, `refusals` of each harmful kind refused."""
    random = np.random.default_rng(seed)
    sets = ["test_harmless", "test_harmful", "test_attacks", "guard_train_harmless"]
    table = pd.DataFrame({"set": np.repeat(sets, N), "id": [f"p{i}" for _ in sets for i in range(N)]})
    harmful = table["set"].isin(["test_harmful", "test_attacks"]).to_numpy()
    attacked = (table["set"] == "test_attacks").to_numpy()
    table["label"] = np.where(harmful, "harmful", "harmless")
    table["attack"] = pd.array(np.where(attacked, "wrap", None), dtype="string")
    table["group"] = np.where(attacked, "wrap", table["label"])
    table["goal"] = pd.array(np.where(attacked, "goal " + table["id"], None), dtype="string")
    table["prompt"] = "SECRET " + table["set"] + table["id"]
    table["refused"] = pd.array(harmful & (np.tile(np.arange(N), 4) < refusals), dtype="boolean")
    table["text"] = np.where(table["refused"], "ANSWER no", "ANSWER yes")
    table["answer_tokens"] = np.where(table["refused"], 5, 10)
    signals = random.uniform(size=(len(table), 4)).astype(np.float32)
    settings = {"model": "m", "fingerprint": "f" * 64, "sampler": {**SAMPLER, **sampler}}
    settings["prompts"] = dict.fromkeys(sets, "h")
    none = pd.DataFrame({"rate": [], "group": []})
    rates = pd.DataFrame([{**RECOVERY, "count": 7}, {**RECOVERY, "rate": "RR", "count": N}])
    study = Study(settings, table, none, signals, signals, np.zeros((2, 4)), {"rates": rates}, folder)
    study.save(folder)
    return study


class FakeJudge:
    name, judges_harm = "fake", True

    def __call__(self, prompts: Sequence[str], texts: Sequence[str]) -> list[Verdict]:
        return [None if prompt == "goal p39" else "yes" in text for prompt, text in zip(prompts, texts, strict=True)]

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


def row(comparison: Comparison, measure: str, group: str, run: int, *, apart: bool, threshold: float = -1) -> pd.Series:
    table = comparison.table
    chosen = (table["measure"] == measure) & (table["group"] == group) & (table["run"] == comparison.runs[run])
    chosen &= (table["baseline"].notna() == apart) & (table["threshold"].fillna(-1) == threshold)
    (found,) = [row for _, row in table[chosen].iterrows()]
    return found


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    make_study(tmp_path / "a", refusals=10, order="left_to_right")
    make_study(tmp_path / "b", refusals=30, seed=1)
    return [tmp_path / "a", tmp_path / "b"]


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 1), (3, 3), (20, 0), (12, 5), (2, 9), (400, 350)])
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected)


@pytest.mark.parametrize("count", [5, 12, 40, 90])
def test_the_paired_interval_leaves_out_zero_exactly_where_the_exact_test_does(count: int) -> None:
    for gained in range(count + 1):
        for lost in range(min(count - gained, 30) + 1):
            found = paired_difference(gained, lost, count)
            assert -1 <= found.low <= found.value <= found.high <= 1 and found.low < found.high
            assert (found.low > 0 or found.high < 0) == (mcnemar(gained, lost) < 0.05), (gained, lost)


@pytest.mark.parametrize(("gained", "lost", "count"), [(12, 2, 50), (9, 0, 40), (0, 0, 40), (30, 0, 30), (1, 14, 60)])
def test_the_paired_interval_is_the_set_of_differences_that_the_score_test_keeps(
    gained: int, lost: int, count: int
) -> None:
    """Against the score test by brute force: the likeliest multinomial under each difference, on a grid."""
    found = paired_difference(gained, lost, count)
    for delta in np.linspace(-0.99, 0.99, 199):
        shares = np.linspace(max(0.0, -delta), (1 - delta) / 2, 20001)  # of pairs lost, where the difference is delta
        with np.errstate(divide="ignore", invalid="ignore"):
            likelihood = sum(
                np.where(hits > 0, hits * np.log(share), 0.0)
                for hits, share in (
                    (gained, shares + delta),
                    (lost, shares),
                    (count - gained - lost, 1 - 2 * shares - delta),
                )
            )
        best = shares[np.nanargmax(likelihood)]
        error = np.sqrt(count * (2 * best + delta - delta**2))
        kept = abs(gained - lost - count * delta) <= 1.959964 * error
        near = min(abs(delta - found.low), abs(delta - found.high)) < 0.011
        assert near or kept == (found.low <= delta <= found.high), delta


@pytest.mark.parametrize(("count", "turning"), [(100, 0.01), (40, 0.05), (25, 0.4)])
def test_the_paired_interval_covers_a_difference_of_few_pairs(count: int, turning: float) -> None:
    random = np.random.default_rng(0)
    drawn = random.multinomial(count, [turning, turning / 4, 1 - 1.25 * turning], size=600)
    found = [paired_difference(int(gained), int(lost), count) for gained, lost, _ in drawn]
    assert np.mean([one.low <= 0.75 * turning <= one.high for one in found]) >= 0.93


def test_counts_beyond_the_pairs_are_refused_and_no_pair_has_no_difference() -> None:
    with pytest.raises(InputError, match="3 pairs gained and 2 lost of 4"):
        paired_difference(3, 2, 4)
    assert np.isnan(paired_difference(0, 0, 0).low)


@pytest.mark.parametrize("count", [2, 5, 12, 80])
def test_the_interval_of_a_mean_covers_it_however_few_values_there_are(count: int) -> None:
    random = np.random.default_rng(0)
    found = [bootstrap_mean(random.normal(20, 5, size=count), random, 500) for _ in range(400)]
    assert 0.92 <= np.mean([one.low <= 20 <= one.high for one in found]) <= 0.99


def test_the_bootstrap_interval_is_that_of_resampled_rows() -> None:
    random = np.random.default_rng(0)
    values = random.integers(0, 30, size=50)
    found = bootstrap_mean(values, random, 20000)
    resampled = values[random.integers(0, 50, size=(20000, 50))].mean(axis=1)
    np.testing.assert_allclose([found.low, found.high], np.quantile(resampled, [0.025, 0.975]), atol=0.1)


def test_equal_values_and_none_at_all_have_the_interval_they_can_have() -> None:
    random = np.random.default_rng(0)
    for few in ([3], [3, 3, 3]):
        found = bootstrap_mean(few, random)
        assert (found.value, found.count) == (3.0, len(few)) and np.isnan([found.low, found.high]).all()
    many = bootstrap_mean([3] * 20, random)
    assert (many.low, many.value, many.high) == (3, 3, 3)
    assert bootstrap_mean([], random).count == 0


def test_rates_and_their_paired_difference_are_those_of_the_prompts(pair: list[Path]) -> None:
    found = compare_runs(pair)
    for run, hits in enumerate([10, 30]):
        level = row(found, "RR", "wrap", run, apart=False)
        assert level[["value", "low", "high", "count"]].tolist() == list(vars(wilson(hits, N)).values())[:4]
    apart = row(found, "RR", "wrap", 1, apart=True)
    assert apart[["value", "count", "gained", "lost", "unit"]].tolist() == [50.0, N, 20, 0, "points"]
    assert apart["p_value"] == pytest.approx(2 * 0.5**20)
    assert 30 < apart["low"] < 50 < apart["high"] < 70
    assert row(found, "RR", "all harmful", 1, apart=True)["gained"] == 40
    assert "all attacks" not in set(found.table["group"])  # there is only one
    assert row(found, "RR", "harmless", 1, apart=True)["value"] == 0


def test_several_attacks_are_also_taken_together(pair: list[Path]) -> None:
    for folder in pair:
        study = make_study(folder)
        rows = study.generations
        second = (rows["group"] == "wrap") & rows["id"].isin(["p0", "p1", "p30"])
        table = rows.assign(group=rows["group"].mask(second, "other"), attack=rows["attack"].mask(second, "other"))
        replace(study, generations=table).save(folder)
    found = compare_runs(pair)
    assert row(found, "RR", "all attacks", 0, apart=False)[["value", "count"]].tolist() == [0.5, N]
    assert row(found, "RR", "other", 0, apart=False)[["value", "count"]].tolist() == [2 / 3, 3]


@pytest.mark.parametrize("limit", [0.5, 0.3, 0.1])
def test_internal_recovery_is_that_of_the_signals(limit: float, tmp_path: Path) -> None:
    studies = [make_study(tmp_path / "a"), make_study(tmp_path / "b", seed=3)]
    found = compare_runs([study.path for study in studies])
    rates = []
    for run, study in enumerate(studies):
        members = (study.generations["group"] == "harmful").to_numpy()
        rates.append(internal_recovery_rate(study.signals[members], refusal=limit).value)
        assert row(found, "IRR", "harmful", run, apart=False, threshold=limit)["value"] == rates[-1]
    apart = row(found, "IRR", "harmful", 1, apart=True, threshold=limit)
    assert apart["value"] == pytest.approx(100 * (rates[1] - rates[0]))


def test_lengths_are_told_apart_by_refusal(pair: list[Path]) -> None:
    found = compare_runs(pair)
    levels = [row(found, name, "wrap", 0, apart=False) for name in ("tokens", "tokens, refused", "tokens, complied")]
    assert [(level["value"], level["count"]) for level in levels] == [(8.75, 40), (5.0, 10), (10.0, 30)]
    assert row(found, "tokens", "wrap", 1, apart=True)["value"] == pytest.approx(-2.5)
    assert row(found, "tokens, refused", "wrap", 1, apart=True)["count"] == 10  # those refused in both


def test_a_judge_of_harm_gives_paired_attack_success_and_leaves_malformed_verdicts_out(pair: list[Path]) -> None:
    found = compare_runs(pair, judge=FakeJudge())
    assert row(found, "ASR (fake)", "wrap", 0, apart=False)[["value", "count"]].tolist() == [29 / 39, 39]
    assert row(found, "ASR (fake)", "wrap", 1, apart=True)[["lost", "count"]].tolist() == [20, 39]
    assert found.settings["judge"]["malformed"] == 2
    assert not (found.table["measure"].str.startswith("ASR") & (found.table["group"] == "harmless")).any()
    assert compare_runs(pair).settings["judge"] is None


def test_identical_runs_do_not_differ(tmp_path: Path) -> None:
    make_study(tmp_path / "a")
    found = compare_runs([tmp_path / "a", tmp_path / "a"], judge=FakeJudge())
    apart = found.table[found.table["baseline"].notna()]
    assert (apart["value"] == 0).all()
    assert (apart["low"] <= 0).all() and (apart["high"] >= 0).all()
    shares = apart[apart["unit"] == "points"]
    assert (shares["low"] < 0).all() and (shares["high"] > 0).all()  # no pair differs, but others may
    assert (apart.loc[apart["unit"] == "points", "p_value"] == 1).all()
    assert found.runs == ["a (1)", "a (2)"]


def test_recovery_rates_stand_side_by_side_without_a_difference(pair: list[Path]) -> None:
    table = compare_runs(pair).table
    rows = table[table["measure"] == "HRR (complies)"]
    assert rows[["group", "value", "count"]].to_numpy().tolist() == [["wrap", 0.5, 7]] * 2
    assert rows["baseline"].isna().all()


def test_rows_are_matched_by_prompt_and_not_by_place(pair: list[Path]) -> None:
    study = make_study(pair[1], refusals=30, seed=1)
    order = np.random.default_rng(5).permutation(len(study.generations))
    shuffled = replace(
        study, generations=study.generations.iloc[order].reset_index(drop=True), signals=study.signals[order]
    )
    expected = compare_runs(pair).table
    shuffled.save(pair[1])
    pd.testing.assert_frame_equal(compare_runs(pair).table, expected)


def test_other_prompts_are_an_error_that_names_both_sides(pair: list[Path]) -> None:
    study = make_study(pair[1], refusals=30)
    kept = np.arange(len(study.generations)) != 5
    changed = study.generations[kept].reset_index(drop=True)
    changed.loc[:2, "prompt"] = "another"
    replace(study, generations=changed, signals=study.signals[kept], text_signals=study.signals[kept]).save(pair[1])
    with pytest.raises(InputError, match=r"a and .*b were not made with the same prompts: 4 of 120") as caught:
        compare_runs(pair)
    assert "(the first is 'p0') and 3 of 119" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    found = compare_runs(pair, intersect=True)
    assert found.settings["prompts"] == 116
    assert row(found, "RR", "harmless", 1, apart=True)["count"] == N - 4
    assert not found.table["measure"].str.startswith("HRR").any()  # they are those of all prompts


def test_runs_that_share_nothing_cannot_be_compared(pair: list[Path]) -> None:
    study = make_study(pair[1])
    replace(study, generations=study.generations.assign(prompt="another")).save(pair[1])
    with pytest.raises(InputError, match="share no prompt"):
        compare_runs(pair, intersect=True)


def test_prompts_of_token_ids_are_the_same_where_their_sets_are(pair: list[Path]) -> None:
    for folder, content in zip(pair, "hh", strict=True):
        study = make_study(folder)
        settings = {**study.settings, "prompts": dict.fromkeys(study.settings["prompts"], content)}
        replace(study, settings=settings, generations=study.generations.assign(prompt=None)).save(folder)
    assert compare_runs(pair).settings["prompts"] == 3 * N
    replace(study, settings={**settings, "prompts": {}}, generations=study.generations.assign(prompt=None)).save(
        pair[1]
    )
    with pytest.raises(InputError, match="120 of 120"):
        compare_runs(pair)


def test_runs_are_labelled_by_what_sets_them_apart(tmp_path: Path) -> None:
    make_study(tmp_path / "a", order="left_to_right", seed=1)
    make_study(tmp_path / "b")
    make_study(tmp_path / "c", suppress_eos=True)
    folders = [tmp_path / name for name in "abc"]
    assert compare_runs(folders).runs == [
        "order=left_to_right, suppress_eos=False",
        "order=confidence, suppress_eos=False",
        "order=confidence, suppress_eos=True",
    ]
    assert compare_runs(folders[:2]).runs == ["order=left_to_right", "order=confidence"]


def test_a_folder_without_results_and_a_single_run_are_refused(pair: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds neither a study"):
        compare_runs([pair[0], tmp_path])
    with pytest.raises(InputError, match="1 run to compare"):
        compare_runs(pair[:1])


def test_the_same_seed_gives_the_same_table_and_it_is_saved_whole(pair: list[Path], tmp_path: Path) -> None:
    found = compare_runs(pair, judge=FakeJudge(), seed=4)
    pd.testing.assert_frame_equal(found.table, compare_runs(pair, judge=FakeJudge(), seed=4).table)
    found.save(tmp_path / "out")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out" / "comparison.parquet"), found.table)
    settings = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [run["label"] for run in settings["runs"]] == found.runs
    assert {one["group"] for one in settings["differences"]} == {"all harmful"}


def test_the_page_opens_offline_and_holds_every_number_and_no_text(pair: list[Path], tmp_path: Path) -> None:
    found = compare_runs([*pair, pair[0]], judge=FakeJudge())
    page = write_comparison(found, tmp_path).read_text(encoding="utf-8")
    assert "<script" not in page
    assert 'href="http' not in page
    assert "+50.0 points" in page and "40\u00a0pairs, p\u00a0=\u00a01.9e-06" in page
    assert "SECRET" not in page and "ANSWER" not in page
    assert (tmp_path / "comparison.png").stat().st_size > 1000
    assert "not be read" in page


def test_the_figure_has_a_panel_a_rate_and_a_marker_a_run(pair: list[Path]) -> None:
    figure = comparison_figure(compare_runs(pair))
    titles = [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes]
    assert titles[0] == "refused (RR)"
    assert titles[1:4] == [f"internal recovery (IRR), λr = {limit}" for limit in (0.5, 0.3, 0.1)]
    assert titles[4:] == ["HRR (complies)"]
    assert len(figure.legends[0].get_texts()) == 2
