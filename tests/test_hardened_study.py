"""A study that records the shipped material as well, and compares the guards that are fitted on it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import demur
from demur.cli import main
from demur.errors import InputError
from demur.files.manifests import read_manifest, write_manifest
from demur.guards import ProbeGuard, StreamingGuard, load_guard, states_of
from demur.hardening import resembling
from demur.models import Model
from demur.recording import Recording
from demur.recording import folder as files
from demur.report.parts.first import three_numbers
from demur.report.study.hardened import hardening_section, hardening_words
from demur.samplers import Autoregressive
from demur.serve.guards import load_guards
from demur.studies import STUDY_TABLES, Study, hardening, read_study, run_study
from demur.studies.hardening import recorded
from demur.studies.material import kinds_left
from demur.studies.study import hardened
from demur.studies.study.hardened import HARDENED, STREAMING_HARDENED
from demur.studies.study.left_out import LEFT_OUT
from demur.studies.study.tables.evidence import RULES

FILES = {f"{name}.safetensors" for name in ("probe_guard", "probe_looks", "streaming_probe_guard")}
SHORT = recorded.rest(0)[:20], [half[:10] for half in recorded.tasks(0)]
"""In the place of more than 700 prompts, for the time that they take."""
OWN_SETS = ("guard_train_harmless", "anchors_harmful", "guard_calibration_harmless")
ALIKE = ("role-persona", "game-points")
"""The kinds that resemble the toy world's only attack, in these tests."""


@pytest.fixture(autouse=True, scope="module")
def shorter() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "rest", lambda seed: SHORT[0])
        patch.setattr(recorded, "tasks", lambda seed: SHORT[1])
        patch.setattr(hardened, "resembling", lambda name: ALIKE if name == "pretend" else resembling(name))
        yield


def run(model: Model, prompts: Path, out: Path) -> Study:
    options = {"steps": 6, "limit": 24, "check": False, "harden": True, "harden_rounds": 1}
    return run_study(model, prompts, out, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def study(shorter: None, toy_folder: Path, toy_prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study of `toy_study`, hardened."""
    found = run(demur.load(toy_folder, device="cpu"), toy_prompts, tmp_path_factory.mktemp("hard"))
    return replace(found, made=None)


def rows_of(table: pd.DataFrame, of_them: bool) -> pd.DataFrame:
    """The rows of the hardened detectors, or all others."""
    if "detector" not in table:
        return table.iloc[:0] if of_them else table
    return table[table["detector"].str.startswith((HARDENED, STREAMING_HARDENED)) == of_them]


def test_the_hardened_guards_stand_in_every_table_that_compares_detectors(study: Study) -> None:
    for name in STUDY_TABLES:
        if "detector" in study.tables[name]:
            found = rows_of(study.tables[name], of_them=True)
            assert len(found) and found["detector"].str.startswith(STREAMING_HARDENED).any(), name
            first = study.tables[name][study.tables[name]["detector"] == study.tables[name]["detector"][0]]
            assert (len(found) % len(first)) == 0, name  # as many groups or kinds as every other detector
    assert set(rows_of(study.evidence, of_them=True)["detector"]) == {
        f"{STREAMING_HARDENED}, {at_least} of the last {of_last} looks" for at_least, of_last in RULES
    }
    assert {HARDENED, STREAMING_HARDENED} <= set(study.scores)


def test_one_look_of_the_last_one_is_the_rule_of_the_saved_guard(study: Study) -> None:
    rows = rows_of(study.evidence, of_them=True)
    first = rows[rows["detector"].str.contains("1 of the last 1")].drop(columns="detector")
    saved = rows_of(study.streaming, of_them=True).drop(columns="detector")
    pd.testing.assert_frame_equal(first.reset_index(drop=True), saved.reset_index(drop=True))


def test_the_saved_guards_give_the_scores_and_limits_of_the_tables(study: Study) -> None:
    guard, looks, stream = (load_guard(study.path / name) for name in sorted(FILES))
    assert isinstance(guard, ProbeGuard) and isinstance(looks, ProbeGuard) and isinstance(stream, StreamingGuard)
    recording = Recording(study.path / "recordings" / "test_attacks")
    rows = (study.generations["set"] == "test_attacks").to_numpy()
    layers = guard.provenance_.layers if guard.provenance_ else None
    errors = guard.errors(states_of(recording, guard.places, layers))
    np.testing.assert_allclose(errors, study.scores.loc[rows, HARDENED], rtol=1e-5)
    seen = looks.place_errors(states_of(recording, looks.places, layers))
    np.testing.assert_allclose(stream.errors(seen), study.scores.loc[rows, STREAMING_HARDENED], rtol=1e-5)
    caught = study.detection.set_index(["detector", "group", "subset"]).loc[(HARDENED, "pretend", "all"), "tpr"]
    assert caught == (errors > guard.threshold_).mean()
    counts = study.generations["set"].value_counts()  # and the half of the others that is not fitted on
    assert guard.n_calibration_ == counts["guard_calibration_harmless"] + counts["guard_train_harmless"] // 2


def test_the_studys_own_guards_and_numbers_are_those_without_it(study: Study, toy_study: Path) -> None:
    plain = read_study(toy_study)
    assert "hardening" not in plain.settings and "hardening" not in plain.tables
    assert set(study.tables) - set(plain.tables) == {"hardening", LEFT_OUT}
    for name, table in plain.tables.items():
        assert not len(rows_of(table, of_them=True))
        found = rows_of(study.tables[name], of_them=False).reset_index(drop=True)
        pd.testing.assert_frame_equal(found, table, check_dtype=False, rtol=1e-5)
    np.testing.assert_allclose(study.signals, plain.signals, atol=1e-5)
    assert study.settings["layers"] == plain.settings["layers"]
    assert set(study.settings["files"]) == {*plain.settings["files"], *FILES}


def test_a_hardened_guard_is_served_and_a_swapped_one_is_not(study: Study, tmp_path: Path) -> None:
    folder = shutil.copytree(study.path, tmp_path / "run", ignore=shutil.ignore_patterns("recordings"))
    (pair,) = load_guards([folder])
    assert pair.name == "streaming_probe_guard"
    (folder / "probe_looks.safetensors").write_bytes((folder / "probe_guard.safetensors").read_bytes())
    with pytest.raises(InputError, match=r"probe_looks.safetensors: is not the file that study.json was written with"):
        load_guards([folder])


def test_a_guard_that_another_run_left_behind_is_not_served(study: Study, tmp_path: Path) -> None:
    folder = shutil.copytree(study.path, tmp_path / "run", ignore=shutil.ignore_patterns("recordings"))
    kept = read_manifest(folder / "study.json")
    write_manifest(folder / "study.json", {**kept, "files": {n: h for n, h in kept["files"].items() if n not in FILES}})
    (pair,) = load_guards([folder])
    assert pair.name == "streaming_direction_guard"
    write_manifest(folder / "study.json", {name: value for name, value in kept.items() if name != "files"})
    assert [one.name for one in load_guards([folder])] == ["streaming_probe_guard"]  # of an older study, all are taken


def test_a_second_run_records_nothing_and_finds_the_same(
    study: Study, toy_model: Model, toy_prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Autoregressive, "steps", lambda *a, **k: pytest.fail("generated again"))
    reads: list[tuple[Path, int]] = []
    read = files.read_shard_arrays
    monkeypatch.setattr(files, "read_shard_arrays", lambda *a: reads.append(a[:2]) or read(*a))
    again = run(toy_model, toy_prompts, study.path)
    for name, table in study.tables.items():
        pd.testing.assert_frame_equal(again.tables[name], table)
    of_material = [place for place in reads if "hardening" in place[0].parts]
    assert of_material and len(of_material) == len(set(of_material))
    assert {place[0].name for place in reads} - {place[0].name for place in of_material} <= {
        "anchors_harmless",
        "anchors_harmful",
    }


def test_the_kinds_that_were_used_and_those_that_resemble_an_attack_are_named(study: Study) -> None:
    kept = study.settings["hardening"]
    assert kept["kinds"] == list(kinds_left([])) and kept["rounds"] == 1
    assert kept["resembling"] == {"pretend": list(ALIKE)}
    assert set(study.hardening["detector"]) == {HARDENED, STREAMING_HARDENED}
    assert set(study.hardening["kind"]) >= {"guard_calibration_harmless", "plain", "languages", "wrapped"}
    unknown = replace(study, settings={**study.settings, "hardening": {**kept, "resembling": {}}})
    cells = [section["attacks"].rows[0][1][0].value for one in (study, unknown) if (section := hardening_section(one))]
    assert cells == ["role-persona, game-points", "not known: demur knows no attack of this name"]


def test_of_known_attacks_only_kinds_that_were_used_are_said_to_resemble_them() -> None:
    found = hardened.resembled_by(["GCG", "few_shot", "made up"], ["plain", "noise-suffix", "own"])
    assert found == {"GCG": ["noise-suffix"], "few_shot": []}


def test_each_attack_is_measured_without_the_kinds_that_resemble_it(study: Study, shorter: None) -> None:
    rows = study.tables[LEFT_OUT].set_index(["detector", "subset"])
    assert set(rows["left_out"]) == {"role-persona, game-points"} and set(rows["group"]) == {"pretend"}
    assert set(rows.index.get_level_values(0)) == {HARDENED, STREAMING_HARDENED}
    recordings = [Recording(study.path / "hardening" / "recordings" / name) for name in ("round-1", "rest", "tasks")]
    own = {name: Recording(study.path / "recordings" / name) for name in OWN_SETS}
    found = hardening.read_material(
        recordings,
        0,
        own["guard_calibration_harmless"],
        fitted={"harmless": own["guard_train_harmless"], "harmful": own["anchors_harmful"]},
    )
    kinds = [*kinds_left(ALIKE), "own", "own-fitted"]
    C = study.settings["hardening"]["C"]
    alone = hardening.fit_hardened(found, kinds, quantile=0.99, choices=(C,)).guard
    layers = alone.provenance_.layers if alone.provenance_ else None
    errors = alone.errors(states_of(Recording(study.path / "recordings" / "test_attacks"), alone.places, layers))
    assert rows.loc[(HARDENED, "all"), "tpr"] == (errors > alone.threshold_).mean()
    assert rows.loc[(HARDENED, "all"), "negatives"] == (study.generations["set"] == "test_harmless").sum()


def test_the_studys_own_plain_prompts_are_fitted_on_and_half_of_the_harmless_ones_set_the_limit(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, harmful, calibration = (Recording(study.path / "recordings" / name) for name in OWN_SETS)
    material = [Recording(study.path / "hardening" / "recordings" / name) for name in ("round-1", "rest", "tasks")]

    def found(**fitted: Recording) -> pd.DataFrame:
        table = hardening.read_material(material, 0, calibration, fitted=fitted).table
        return table[table["kind"] == "own-fitted"]

    rows = found(harmless=train, harmful=harmful)
    fitted = rows[~rows["held_out"]]
    assert list(rows["id"]) == [*train.table["id"], *harmful.table["id"]]
    assert list(fitted["harmful"]) == [False] * (len(train) // 2) + [True] * len(harmful)
    alone = hardening.read_material(material, 0, calibration).table
    assert study.settings["hardening"]["fitted_on"] == int((~alone["held_out"]).sum()) + len(fitted)
    words = hardening_words(study)[0]
    assert f"and {len(fitted)} of the study's anchors_harmful and guard_train_harmless" in words
    assert (
        f"The rest of the latter and guard_calibration_harmless ({study.settings['hardening']['calibrated_on']}"
        in words
    )
    before = {name: value for name, value in study.settings["hardening"].items() if name != "own_fitted_on"}
    assert "study's" not in hardening_words(replace(study, settings={**study.settings, "hardening": before}))[0]
    held = study.hardening[study.hardening["kind"] == "guard_train_harmless"]
    assert set(held["count"]) == {len(train) - len(train) // 2} and held["sets_limit"].all()
    monkeypatch.setattr(recorded, "OWN_MOST", 5)
    assert list((~found(harmless=train, harmful=harmful)["held_out"]).groupby(rows["harmful"]).sum()) == [5, 5]


def test_the_page_begins_with_the_guard_of_the_highest_auroc_a_hardened_one_too(study: Study) -> None:
    highest = study.detection.assign(
        auroc=np.where(study.detection["detector"] == HARDENED, 1.0, study.detection["auroc"] * 0.9)
    )
    assert any(HARDENED in head for head in three_numbers(replace(study, detection=highest)))


def test_a_study_without_it_says_nothing_of_it(toy_study: Path) -> None:
    assert hardening_section(read_study(toy_study)) is None


def test_the_command_and_the_report_say_what_was_used(
    study: Study,
    toy_folder: Path,
    toy_prompts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = [
        "demur",
        "study",
        str(toy_folder),
        "--prompts",
        str(toy_prompts),
        "--out",
        str(study.path),
        "--steps",
        "6",
    ]
    command += ["--limit", "24", "--no-check", "--harden", "--harden-rounds", "1", "--json", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert not ended.value.code
    assert json.loads(told.out)["hardening"]["kinds"] == list(kinds_left([]))
    page = (study.path / "report.html").read_text()
    assert "fitted on more than a study has" in page and ", ".join(kinds_left([])) in page and HARDENED in page
    assert "fitted on more than a study has" in told.err and "resembles pretend: role-persona, game-points" in told.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--harden-rounds", "2"], "give --harden too"),
        (["--harden-longest", "200"], "give --harden too"),
        (["--harden", "--harden-longest", "0"], "longest is 0"),
        (["--harden", "--harden-rounds", "9"], "rounds is 9; expected 1 to 8"),
    ],
)
@pytest.mark.parametrize("name", ["study", "paper"])
def test_what_cannot_be_done_is_one_line_before_a_model_is_loaded(
    name: str,
    options: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    models = ["demur/none"] if name == "study" else ["paper", "demur/none"]
    monkeypatch.setattr(
        "sys.argv", ["demur", "study", *models, "--prompts", "demur/toy", "--out", str(tmp_path / "a"), *options]
    )
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2 and words in said and said.count("\n") == 1 and not (tmp_path / "a").exists()


def test_too_few_calibration_prompts_are_named_before_anything_is_generated(
    toy_model: Model, toy_prompts: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="quantile is 2; expected a number between 0 and 1"):
        run_study(toy_model, toy_prompts, tmp_path / "a", quantile=2)
    for harden in (True, False):
        words = (
            "guard_calibration_harmless: 12 prompts to calibrate on are too few; give 20 or more; --limit 12 is too low"
        )
        with pytest.raises(InputError, match=words):
            run_study(toy_model, toy_prompts, tmp_path / "a", limit=12, harden=harden)
    assert not (tmp_path / "a").exists()
