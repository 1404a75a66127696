"""The demonstration: the bundled models through the whole story, and a page that says what its numbers say."""

import io
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

import demur
from demur import cli
from demur.recording.gaps import GAP
from demur.report import write_story
from demur.report.compare.orders import orders_context
from demur.report.demo import page as story
from demur.report.demo.walks import rows_of, runs_of
from demur.report.parts import sentences
from demur.report.parts.labels import visible
from demur.report.study.page import example_places
from demur.samplers import Autoregressive, MaskedDiffusion
from demur.samplers.block_diffusion.base import BlockSampler
from demur.studies.compare.compare import ALL_HARMFUL
from demur.studies.demo.run import AR, COMPARED, DIFFUSION, ORDERS, SIZES, Demo, pooled, run_demo, turned_at_first_step
from demur.studies.demo.walk import Token, Walk, WalkStep, latest_recovery, shown_steps, walk_of
from demur.studies.study.prompt_sets import read_sets
from test_report import HOSTILE, Page, references_have_their_targets, refers_to_nothing_outside

FEW = {"anchors_harmless": 8, "anchors_harmful": 10, "guard_train_harmless": 16, "guard_calibration_harmless": 20}
FEW |= {"test_harmless": 3, "test_harmful": 3, "test_attacks": 1, "control_wrapped": 1}
FEW_COMPARED = {"test_harmful": 2, "test_attacks": 1}
pytestmark = pytest.mark.filterwarnings("ignore:.*signals to calibrate")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    return run_demo(tmp_path_factory.mktemp("demo") / "out", sizes=FEW, compared=FEW_COMPARED)


def demur_demo(*arguments: object) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    few = partial(run_demo, sizes=FEW, compared=FEW_COMPARED)
    command = patch.object(sys, "argv", ["demur", "demo", *map(str, arguments)])
    with command, patch("demur.studies.demo.run.run_demo", few), redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def commanded(demo: Demo) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command line, which finds everything recorded already."""
    return demur_demo("--out", demo.path)


@pytest.fixture(scope="module")
def page(demo: Demo, commanded: tuple[int, str, str]) -> Page:
    return Page(demo.path / "report.html")


def with_difference(demo: Demo, end: str, value: float, low: float, high: float) -> Demo:
    """The demo with another difference in refusals over all harmful prompts."""
    pair = demo.pairs[end]
    table = pair.table.copy()
    chosen = table["measure"].eq("RR") & table["group"].eq(ALL_HARMFUL) & table["baseline"].notna()
    table.loc[chosen, ["value", "low", "high"]] = [value, low, high]
    table.loc[chosen, "p_value"] = 1.0 if low <= 0 <= high else 0.01
    return replace(demo, pairs={**demo.pairs, end: replace(pair, table=table)})


def row(value: float, low: float, high: float) -> SimpleNamespace:
    return SimpleNamespace(value=value, low=low, high=high, count=160, p_value=0.02)


def step(
    index: int, signal: float = 0.9, text_signal: float = 1.0, complies: bool = True, kind: str = "new"
) -> WalkStep:
    return WalkStep(index, [Token(" word", kind, False, False)], signal, text_signal, complies)


def walk(steps: list[WalkStep]) -> Walk:
    return Walk(0, "id", "group", "prompt", "text", False, False, steps)


def test_the_demo_studies_both_models_and_compares_the_orders_of_one(demo: Demo) -> None:
    assert list(demo.studies) == [AR, DIFFUSION]
    for study in demo.studies.values():
        assert study.settings["counts"] == {**FEW, "test_attacks": 10, "control_wrapped": 9}
    assert len(demo.comparison.runs) == len(ORDERS)
    assert demo.comparison.settings["prompts"] == 12
    for pair in demo.pairs.values():
        assert [run["sampler"]["order"] for run in pair.settings["runs"]] == ["left_to_right", "confidence"]
    assert [run["sampler"]["name"] for run in demo.families.settings["runs"]] == [
        "Autoregressive",
        "MaskedDiffusion",
        "BlockDiffusion",
    ]
    assert demo.families.settings["prompts"] == 12
    suppressed = [run["sampler"]["suppress_eos"] for run in demo.pairs["suppressed"].settings["runs"]]
    assert suppressed == [True, True]


def test_every_answer_is_as_long_as_the_canvas_where_its_end_is_suppressed(demo: Demo) -> None:
    table = demo.comparison.table
    runs = demo.comparison.runs[2:]
    lengths = table[table["measure"].eq("tokens") & table["run"].isin(runs) & table["baseline"].isna()]
    assert (lengths["value"] == 32).all()


def test_the_same_demo_again_generates_nothing(demo: Demo, monkeypatch: pytest.MonkeyPatch) -> None:
    for sampler in (Autoregressive, MaskedDiffusion, BlockSampler):
        monkeypatch.setattr(sampler, "steps", lambda *a, **k: pytest.fail("generated again"))
    again = run_demo(demo.path, sizes=FEW, compared=FEW_COMPARED)
    pd.testing.assert_frame_equal(again.comparison.table, demo.comparison.table)


def test_the_sizes_are_within_the_bundled_sets_and_compare_only_what_the_study_has() -> None:
    sets = read_sets(Path("demur/toy"), None)
    for name, size in SIZES.items():
        groups: dict[str, int] = {}
        for prompt in sets[name]:
            groups[prompt.group] = groups.get(prompt.group, 0) + 1
        assert min(groups.values()) >= size
    assert all(size <= SIZES[name] for name, size in COMPARED.items())


def test_a_walk_reads_like_the_recording(demo: Demo) -> None:
    for study in demo.studies.values():
        place = int(np.flatnonzero(study.generations["set"] == "test_attacks")[-1])
        found = walk_of(study, place, demo.judge)
        texts = demur.Recording(study.path / "recordings" / "test_attacks").steps_text(9)
        last = found.steps[-1].tokens
        ending = next((i for i, token in enumerate(last) if token.ends), len(last))
        assert "".join(token.text for token in last[:ending]).split() == texts[-1].predicted.split()
        for at, text in zip(found.steps, texts, strict=True):
            committed = "".join(token.text for token in at.tokens if token.kind != "guess")
            known = text.committed.replace(GAP, "").replace(" ", "")  # a walk shows its gaps as guesses
            assert committed.replace(" ", "").startswith(known)


def test_an_autoregressive_walk_commits_a_token_a_step_and_guesses_none(demo: Demo) -> None:
    found = walk_of(demo.studies[AR], len(demo.studies[AR].generations) - 1, demo.judge)
    for at in found.steps[:5]:
        assert [token.kind for token in at.tokens] == ["committed"] * (at.index - 1) + ["new"]


def test_a_diffusion_walk_holds_the_whole_canvas_and_marks_what_changed(demo: Demo) -> None:
    found = walk_of(demo.studies[DIFFUSION], len(demo.studies[DIFFUSION].generations) - 1, demo.judge)
    for before, at in zip(found.steps, found.steps[1:], strict=False):
        assert len(at.tokens) == 32
        assert sum(token.kind == "new" for token in at.tokens) == 1
        changed = [old[::3] != new[::3] for old, new in zip(before.tokens, at.tokens, strict=True)]
        assert [token.changed for token in at.tokens] == changed


def test_the_recovery_shown_is_the_refused_generation_that_complied_latest(demo: Demo) -> None:
    study = demo.studies[DIFFUSION]
    harmful = np.flatnonzero(study.generations["set"].isin(["test_harmful", "test_attacks"]))
    walks = [walk_of(study, int(place), demo.judge) for place in harmful]
    latest = {
        one.place: max((at.index for at in one.steps[:-1] if at.complies), default=0) for one in walks if one.refused
    }
    found = latest_recovery(study, demo.judge)
    assert found.count == len(latest)
    assert found.recovered == sum(index > 0 for index in latest.values())
    assert found.place is None if not found.recovered else latest[found.place] == max(latest.values())


def test_steps_are_shown_where_something_turns_and_left_out_where_nothing_moves() -> None:
    steps = [step(1), step(2), step(3, signal=0.4), step(4, signal=0.4), step(5, signal=0.4, complies=False)]
    steps += [step(i, signal=0.4, complies=False, kind="committed") for i in range(6, 13)]
    assert [one.index for one in shown_steps(walk(steps))] == [1, 3, 4, 5, 12]


def test_tokens_of_one_look_are_joined_and_ends_are_boxes() -> None:
    tokens = [Token(" Sure", "committed", False, False), Token(" here", "committed", False, False)]
    tokens += [Token(" is", "guess", True, False), Token("", "guess", False, True), Token("", "new", True, True)]
    found = [(run.look, run.before, run.text) for run in runs_of(tokens)]
    assert found[0] == ("committed", " ", "Sure here")
    assert found[1] == ("guess changed", " ", "is")
    assert found[2] == ("guess end", "", "▫")
    assert found[3] == ("new end changed", "", "▪")


def test_a_pooled_rate_counts_every_case_of_its_groups_once() -> None:
    rates = pd.DataFrame({"rate": "RR", "group": ["a", "b", "c"], "value": [0.5, np.nan, 1.0], "count": [10, 0, 5]})
    found = pooled(rates, "RR", ["a", "b", "c"])
    assert (found.value, found.count) == (pytest.approx(10 / 15), 15)
    assert np.isnan(pooled(rates, "RR", ["b"]).value)


def test_what_turned_at_the_first_step_only_is_told_apart(demo: Demo) -> None:
    study = demo.studies[DIFFUSION]
    signals = np.full_like(study.signals, 0.1)
    harmful = np.flatnonzero(study.generations["set"].isin(["test_harmful", "test_attacks"]))
    signals[harmful[:3], 0] = 0.6
    signals[harmful[2], 5] = 0.6
    assert turned_at_first_step(replace(study, signals=signals)) == (2, 3)


def test_the_page_has_every_part_of_the_story(demo: Demo, page: Page) -> None:
    for words in (
        "In short",
        "What a step is",
        "Generations, step by step",
        "Taken back: recovery by revision",
        "Anchors, and the signal of every group",
        "Same weights, two samplers",
        "Three families on the same prompts",
        "How often a text is taken back",
        "The guard",
        "Limits",
        "What to try next",
        "How this was made",
    ):
        assert words in page.text
    recovered = latest_recovery(demo.studies[DIFFUSION], demo.judge).place is not None
    shown = [what for models in demo.studies.values() for what in example_places(models).values() if what is not None]
    walks = sum(attributes.get("class") == "walk" for _, attributes in page.elements)
    assert walks == len(demo.studies) + len(shown) + recovered


def test_the_page_gives_the_numbers_of_the_tables(demo: Demo, page: Page) -> None:
    for study in demo.studies.values():
        rates = study.rates[study.rates["rate"].eq("RR") & study.rates["group"].isin(["harmless", "harmful"])]
        for one in rates.itertuples():
            cell = f"{100 * one.value:.1f}% {100 * one.low:.1f}–{100 * one.high:.1f}% n\u00a0=\u00a0{one.count}"
            assert cell.replace("\u00a0", " ") in [" ".join(cell.split()) for cell in page.cells]
    table = demo.comparison.table
    for one in table[
        table["measure"].eq("RR") & table["group"].eq(ALL_HARMFUL) & table["baseline"].isna()
    ].itertuples():
        assert f"{100 * one.value:.1f}%" in page.text


def test_every_number_of_the_page_has_its_interval_and_its_count(page: Page) -> None:
    measured = [" ".join(cell.split()) for cell in page.cells if cell.strip() and "not measured" not in cell]
    share, area = (
        r"[\d.]+% [\d.]+–[\d.]+% n = \d+",
        r"[\d.]+ ([\d.]+–[\d.]+|too few for an interval) n = \d+( against \d+)?",
    )
    apart = r"[+-][\d.]+ points [+-][\d.]+ to [+-][\d.]+ \d+ pairs, p = [\d.e-]+"
    assert len(measured) > 50
    assert [cell for cell in measured if not re.fullmatch(f"{share}|{area}|{apart}", cell)] == []


def test_the_page_refers_to_nothing_outside_itself_and_runs_nothing(page: Page) -> None:
    refers_to_nothing_outside(page)


def test_ids_of_the_page_are_unique_and_every_reference_has_its_target(page: Page) -> None:
    references_have_their_targets(page)


def test_hostile_prompts_tokens_and_names_are_escaped(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = "\n".join(HOSTILE)
    tokens = [Token(everything, "guess", True, False)]
    steps = [replace(step(1), tokens=tokens), replace(step(2), tokens=tokens)]
    hostile = Walk(0, everything, everything, everything, everything, True, True, steps)
    monkeypatch.setattr(story, "walk_of", lambda *arguments: hostile)
    monkeypatch.setattr(story, "_figure", lambda *arguments: "")  # drawing takes seconds
    found = Page(write_story(demo, tmp_path / "report.html"))
    assert not {tag for tag, _ in found.elements} & {"script", "img"}
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    assert not re.search("[\x00-\x08\x0e-\x1f\u202a-\u202e\u2066-\u2069]", found.source)
    for text in HOSTILE:
        assert found.text.count(" ".join(visible(text).split())) > 12


@pytest.mark.parametrize(
    ("allowed", "suppressed", "said"),
    [
        ((12, 4, 20), (9, 2, 15), "refuses more, and end-of-sequence filler does not explain it"),
        ((12, 4, 20), (1, -5, 7), "the filler may be all there is to it"),
        ((1, -5, 7), (0, 0, 0), "nothing here says that diffusion is the safer sampler"),
        ((-12, -20, -4), (-9, -15, -2), "refuses less: here it is not the safer sampler"),
        ((12, 4, 20), (-9, -15, -2), "turns with the filler"),
    ],
)
def test_the_verdict_on_the_sampler_turns_with_the_numbers(
    allowed: tuple[float, ...], suppressed: tuple[float, ...], said: str, demo: Demo
) -> None:
    turned = with_difference(with_difference(demo, "allowed", *allowed), "suppressed", *suppressed)
    assert said in orders_context(turned)["verdict"]


def test_every_pair_of_signs_has_a_verdict() -> None:
    rows = [row(-5, -9, -1), row(0, -3, 3), row(5, 1, 9)]
    assert len({sentences.verdict(a, b) for a in rows for b in rows}) == 9


def test_a_difference_is_named_only_where_its_interval_leaves_out_zero() -> None:
    more, less = (sentences.difference(row(*found), "refusals", "So") for found in ((5, 1, 9), (-5, -9, -1)))
    interval = "(+1.0 to +9.0, 160 prompts, p = 0.02)"
    assert more == f"So, the diffusion order has 5.0 points more refusals than left to right {interval}."
    assert "5.0 points fewer refusals" in less
    unsure = sentences.difference(row(5, -1, 11), "refusals", "So")
    assert "no difference in refusals can be told" in unsure
    assert "−1.0 to +11.0" in unsure
    assert "not measured" in sentences.difference(None, "refusals", "So")


@pytest.mark.parametrize(("low", "high", "p_value"), [(2.5, 20, 0.125), (0.1, 9, 0.05), (np.nan, np.nan, np.nan)])
def test_a_difference_that_only_its_interval_or_neither_tells_is_not_named(
    low: float, high: float, p_value: float
) -> None:
    unsure = SimpleNamespace(value=10.0, low=low, high=high, count=40, p_value=p_value)
    assert sentences.sign_of(unsure) == 0
    assert "no difference in refusals can be told" in sentences.difference(unsure, "refusals", "So")


def test_what_is_said_of_the_guard_turns_with_its_auroc() -> None:
    def found(value: float, low: float, high: float) -> SimpleNamespace:
        return SimpleNamespace(auroc=value, auroc_low=low, auroc_high=high)

    above, chance, below = found(0.9, 0.8, 0.95), found(0.5, 0.4, 0.6), found(0.1, 0.05, 0.2)
    assert "ranks below guessing" in sentences.guard(below, above)
    assert "it ranks above harmless ones" in sentences.guard(below, above)
    assert sentences.guard(chance, chance).count("not told from guessing") == 2
    assert "No attack prompt was answered" in sentences.guard(above, found(np.nan, np.nan, np.nan))


def test_lengths_are_called_different_only_where_their_intervals_part() -> None:
    short, long = row(18, 17, 19), row(22, 21, 23)
    assert "refusals are shorter" in sentences.lengths(short, long)
    assert "refusals are longer" in sentences.lengths(long, short)
    assert "overlap" in sentences.lengths(short, row(19, 18, 20))


def test_lengths_without_an_interval_are_called_neither_different_nor_overlapping() -> None:
    said = sentences.lengths(row(18, np.nan, np.nan), row(22, 21, 23))
    assert "18.0 tokens (too few for an interval, n = 160)" in said and "no difference can be told" in said
    assert "overlap" not in said


def test_a_row_says_on_which_side_of_one_half_its_signal_lies() -> None:
    assert [one.side for one in rows_of([step(1, signal=0.51), step(2, signal=0.5)])] == ["complies", "refuses"]


def test_the_command_line_writes_every_page_and_says_what_to_try_next(
    demo: Demo, commanded: tuple[int, str, str]
) -> None:
    code, out, err = commanded
    assert code == 0, err
    assert f"report: {demo.path / 'report.html'}" in out
    assert "demur study Qwen/Qwen2.5-0.5B-Instruct" in out
    for page in ("report.html", "comparison/comparison.html", f"{AR}/report.html", f"{DIFFUSION}/report.html"):
        assert (demo.path / page).is_file()


def test_another_seed_into_the_same_folder_is_an_error_that_names_the_mend(demo: Demo) -> None:
    code, _, err = demur_demo("--out", demo.path, "--seed", 1)
    assert code == 2
    assert err.count("\n") == 1
    assert "--no-resume" in err


def test_a_folder_that_cannot_be_written_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, err = demur_demo("--out", tmp_path / "file")
    assert code == 2
    assert str(tmp_path / "file") in err
