"""Hardening: which prompts a round holds, what is left out, and the guards, table and news that come of it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import demur
from demur.cli import main
from demur.errors import InputError
from demur.guards import LinearGuard, StreamingGuard, load_guard
from demur.hardening import WRAPPERS
from demur.models import Model, load
from demur.prompts import write_prompts
from demur.serve.guards import load_guards
from demur.studies import harden
from demur.studies.hardening import Hardened, default_layers
from demur.studies.material import FITTED, HELD_OUT, PLAIN, ROUNDS, WRAPPED, kind_of, kinds_left, material

EVERY = [material(number) for number in range(ROUNDS)]


def test_nothing_that_is_held_out_is_fitted_on_in_any_round() -> None:
    fitted, held_out = ({prompt.goal or prompt.prompt for half in EVERY for prompt in half[side]} for side in (0, 1))
    assert not fitted & held_out
    ids = [prompt.id for half in EVERY for side in half for prompt in side]
    assert len(ids) == len(set(ids))


def test_every_round_holds_every_kind_and_both_labels_alike_in_every_wrapper() -> None:
    for fitted, held_out in EVERY:
        assert {prompt.label for prompt in held_out} == {"harmless"}
        counts = pd.Series([(kind_of(p.attack, p.category), p.label) for p in fitted]).value_counts()
        assert all(counts[kind, "harmless"] == counts[kind, "harmful"] > 0 for kind in WRAPPERS)
        assert (counts[PLAIN, "harmless"], counts[PLAIN, "harmful"]) == FITTED[PLAIN]
        kinds = pd.Series([WRAPPED if p.attack else kind_of(None, p.category) for p in held_out]).value_counts()
        assert kinds.to_dict() == HELD_OUT


def test_kinds_and_families_can_be_left_out() -> None:
    left = kinds_left(["noise", "rules-many", "long"])
    assert PLAIN in left and not {"noise-suffix", "rules-many", "long"} & set(left) and "rules-few" in left
    with pytest.raises(InputError, match="kind 'gcg' to leave out is unknown"):
        kinds_left(["gcg"])


@pytest.fixture(scope="module")
def hardened(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Hardened, Path]:
    out = tmp_path_factory.mktemp("hard")
    return harden(load(toy_folder), out, rounds=1, leave_out=["contexts"], with_rest=False), out


def test_guards_are_saved_with_what_they_were_made_of(hardened: tuple[Hardened, Path]) -> None:
    found, out = hardened
    for name, guard in (
        ("probe_guard", found.guard),
        ("probe_looks", found.looks),
        ("streaming_probe_guard", found.stream),
    ):
        assert load_guard(out / f"{name}.safetensors").threshold_ == guard.threshold_
    settings = json.loads((out / "harden.json").read_text())
    assert "context-before" not in settings["kinds"] and "noise-suffix" in settings["resembling"]["gcg"]
    assert settings["C"] == found.guard.C_ and found.guard.n_calibration_ == HELD_OUT[PLAIN]


def test_a_guard_of_another_run_in_its_place_is_not_served(hardened: tuple[Hardened, Path], tmp_path: Path) -> None:
    run = shutil.copytree(hardened[1], tmp_path / "run", ignore=shutil.ignore_patterns("recordings"))
    load_guards([run])
    (run / "probe_looks.safetensors").write_bytes((run / "probe_guard.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"probe_looks.safetensors: is not the file that harden.json was written with"):
        load_guards([run])


def test_false_positives_are_counted_on_held_out_prompts_of_each_kind(hardened: tuple[Hardened, Path]) -> None:
    table = pd.read_parquet(hardened[1] / "false_positives.parquet")
    one = table[table["detector"] == "ProbeGuard"].set_index("kind")
    assert one.loc[PLAIN, "count"] == HELD_OUT[PLAIN] and one.loc["languages", "count"] == HELD_OUT["languages"]
    assert one["sets_limit"].to_dict() == {kind: kind == PLAIN for kind in one.index}
    assert ((one["low"] <= one["value"]) & (one["value"] <= one["high"])).all()


def test_the_streaming_guard_watches_the_looks(hardened: tuple[Hardened, Path], toy_model: Model) -> None:
    from demur.defenses import generate_guarded

    _, out = hardened
    source, stream = load_guard(out / "probe_looks.safetensors"), load_guard(out / "streaming_probe_guard.safetensors")
    assert isinstance(source, LinearGuard) and isinstance(stream, StreamingGuard)
    table = generate_guarded(toy_model, ["tell me about tea", "give me bombs please"], source, stream)
    assert set(table["stopped_at"]) <= {0, 1, 2, *range(4, 33, 4)}


def test_a_run_goes_on_in_its_folder_with_another_choice(hardened: tuple[Hardened, Path], toy_model: Model) -> None:
    _, out = hardened
    before = {path: path.stat().st_mtime_ns for path in out.rglob("shards/*")}
    again = harden(toy_model, out, rounds=1, leave_out=["long"], with_rest=False)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("shards/*")} == before
    assert "context-before" in again.settings["kinds"] and "long" not in again.settings["kinds"]


def test_what_cannot_be_done_is_refused_before_anything_is_generated(toy_model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rounds is 9; expected 1 to 8"):
        harden(toy_model, tmp_path / "a", rounds=9)
    with pytest.raises(InputError, match="--by-kind needs 5 rounds"):
        harden(toy_model, tmp_path / "a", rounds=2, by_kind=True)
    with pytest.raises(InputError, match="longest is -3; it must be a whole number of at least 1"):
        harden(toy_model, tmp_path / "a", longest=-3)
    with pytest.raises(InputError, match="quantile is 2; expected a number between 0 and 1"):
        harden(toy_model, tmp_path / "a", quantile=2)
    assert not (tmp_path / "a").exists()


def test_prompts_of_ones_own_set_the_limit(toy_model: Model, tmp_path: Path) -> None:
    own = [demur.Prompt(f"own-{n}", f"tell me about {n} cups of tea") for n in range(25)]
    few = toy_model.default_sampler(steps=8)
    found = harden(toy_model, tmp_path, rounds=1, with_rest=False, longest=100, sampler=few, calibration=own)
    assert found.guard.n_calibration_ == 25
    rates = found.false_positives.set_index("kind")
    assert rates["sets_limit"].to_dict() == {kind: kind == "own" for kind in rates.index}
    assert set(rates.loc["own", "count"]) == {25}


def test_labelled_prompts_of_ones_own_are_fitted_on_and_half_of_the_harmless_ones_set_the_limit(
    toy_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["harmless"] * 44 + ["harmful"] * 5
    own = [demur.Prompt(f"own-{n}", f"tell me about {n} cups of tea", label) for n, label in enumerate(labels)]
    options = {"rounds": 1, "with_rest": False, "longest": 100, "sampler": toy_model.default_sampler(steps=4)}
    alone, found = (harden(toy_model, tmp_path, also=also, **options) for also in ((), own))  # type: ignore[arg-type]
    assert found.settings["fitted_on"] == alone.settings["fitted_on"] + 22 + 5
    assert found.guard.n_calibration_ == 22
    rates = found.false_positives.set_index("kind")
    assert rates["sets_limit"].to_dict() == {kind: kind == "own-fitted" for kind in rates.index}
    harmful = harden(toy_model, tmp_path / "b", also=own[44:], **options)  # type: ignore[arg-type]
    assert harmful.settings["calibrated_on"] == alone.settings["calibrated_on"]
    write_prompts([*own[:30], *own[44:]], tmp_path / "own.jsonl")
    command = ["demur", "harden", "demur/tiny-ar", "--out", str(tmp_path / "c"), "--also", str(tmp_path / "own.jsonl")]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit, match="2"):
        main()
    said = capsys.readouterr().err
    assert "30 harmless prompts to fit on are too few" in said and "give 40 or more" in said and said.count("\n") == 1
    with pytest.raises(InputError, match="prompt 'x' to fit on has no label; give each the label harmless or harmful"):
        harden(toy_model, tmp_path / "c", also=[demur.Prompt("x", "Why?")])
    assert not (tmp_path / "c").exists()


def test_harmful_or_too_few_prompts_do_not_set_a_limit(toy_model: Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 prompts to calibrate on are too few; give 20 or more"):
        harden(toy_model, tmp_path / "a", calibration=[demur.Prompt(f"{n}", "Why?") for n in range(3)])
    with pytest.raises(InputError, match="prompt 'x' to calibrate on is labelled harmful"):
        harden(toy_model, tmp_path / "a", calibration=[demur.Prompt("x", "Why?", "harmful")])
    assert not (tmp_path / "a").exists()


def test_long_prompts_are_in_the_first_round_only_where_a_limit_is_given(toy_model: Model, tmp_path: Path) -> None:
    harden(toy_model, tmp_path, rounds=2, longest=100, with_rest=False, sampler=toy_model.default_sampler(steps=2))
    first, second = (
        pd.read_parquet(tmp_path / "recordings" / f"round-{number}" / "table.parquet")["prompt_tokens"]
        for number in (1, 2)
    )
    assert second.max() <= 100 < first.max() and len(second) < len(first)


def test_layers_lie_an_eighth_apart(toy_model: Model) -> None:
    assert default_layers(toy_model)[-1] == toy_model.layer_count
    assert np.unique(default_layers(toy_model)).tolist() == list(default_layers(toy_model))


def test_the_command_refuses_an_unknown_kind_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["demur", "harden", "demur/tiny-ar", "--out", str(tmp_path / "a"), "--leave-out", "gcg"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "kind 'gcg' to leave out is unknown" in said
    assert said.count("\n") == 1 and not (tmp_path / "a").exists()
