"""Hardening on whole answers: the material at its looks, and guards that look there."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from demur.cli import main
from demur.defenses import generate_guarded
from demur.errors import InputError
from demur.guards import ProbeGuard, StreamingGuard, load_guard, states_of
from demur.looks import Looks
from demur.models import Model
from demur.recording import Recording
from demur.samplers import Autoregressive
from demur.serve.guards import Guards, load_guards
from demur.signal import Signal
from demur.studies import harden
from demur.studies.material import HELD_OUT, PLAIN, kind_of, material

STEPS, WINDOW = 24, 4


def run(*words: str) -> int:
    """The exit code of a command."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["demur", *words])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def out(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hard")
    options = ["--keep", "looks", "--steps", str(STEPS), "--window", str(WINDOW), "--rounds", "1", "--no-rest"]
    assert run("harden", str(toy_folder), "--out", str(folder), "--device", "cpu", *options) == 0
    return folder


def test_the_material_is_kept_at_looks_and_the_guards_look_there(out: Path) -> None:
    recording = Recording(out / "recordings" / "round-1")
    assert recording.looks == Looks.of(STEPS, WINDOW) and recording.looks is not None
    for name in ("probe_guard", "probe_looks"):
        guard = load_guard(out / f"{name}.safetensors")
        assert isinstance(guard, ProbeGuard) and guard.places == recording.looks and guard.calibrated_
    stream = load_guard(out / "streaming_probe_guard.safetensors")
    assert isinstance(stream, StreamingGuard) and stream.n_features_in_ == len(recording.looks)
    settings = json.loads((out / "harden.json").read_text())
    assert settings["keep"] == "looks" and settings["looks"] == {"steps": [0, 1, 2, 4, 8, 16, 24], "window": WINDOW}


def test_the_table_is_the_same_and_counts_what_the_guards_do_on_held_out_prompts(out: Path) -> None:
    table = pd.read_parquet(out / "false_positives.parquet")
    assert list(table) == ["detector", "kind", "sets_limit", "value", "low", "high", "count", "hits"]
    one = table[table["detector"] == "ProbeGuard"].set_index("kind")
    assert one.loc[PLAIN, "count"] == HELD_OUT[PLAIN] and bool(one.loc[PLAIN, "sets_limit"])
    source, stream = load_guard(out / "probe_looks.safetensors"), load_guard(out / "streaming_probe_guard.safetensors")
    assert isinstance(source, ProbeGuard) and isinstance(stream, StreamingGuard)
    recording = Recording(out / "recordings" / "round-1")
    held_out = [prompt.id for prompt in material(0)[1] if kind_of(prompt.attack, prompt.category) == "languages"]
    states = states_of(recording, source.places)[recording.table["id"].isin(held_out).to_numpy()]
    assert one.loc["languages", ["hits", "count"]].tolist() == [(source.predict(states) == -1).sum(), len(states)]
    other = table[table["detector"] == "StreamingGuard on the probe"].set_index("kind")
    assert other.loc["languages", "hits"] == (stream.stops(source.place_errors(states)) > 0).sum()


def test_answers_are_stopped_at_looks_as_on_the_recording(out: Path, toy_model: Model) -> None:
    (pair,) = load_guards([out])
    source, stream = pair.source, pair.guard
    assert isinstance(source, ProbeGuard)
    recording = Recording(out / "recordings" / "round-1")
    stops = source.steps_of(stream.stops(source.place_errors(states_of(recording, source.places))), STEPS)
    chosen = [*np.flatnonzero(stops)[:6], *np.flatnonzero(stops == 0)[:6]]
    assert len(chosen) > 6
    prompts = [{"token_ids": toy_model.encode(recording.table["prompt"][row])} for row in chosen]
    table = generate_guarded(toy_model, prompts, source, stream, Autoregressive(STEPS))
    np.testing.assert_array_equal(table["stopped_at"], stops[chosen])


def test_the_server_takes_the_folder_and_looks_at_whole_answers(
    out: Path, toy_model: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    guards = Guards(toy_model, load_guards([out]))
    assert guards.looks == Looks.of(STEPS, WINDOW) and guards.has_prompt and guards.last_step == STEPS
    for name in ("probe_guard", "streaming_probe_guard"):
        assert run("guard", "show", str(out / f"{name}.safetensors")) == 0
    assert "probe-guard" in capsys.readouterr().out


def test_a_second_run_records_nothing_and_a_folder_of_other_recordings_is_refused(
    out: Path, toy_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Autoregressive, "steps", lambda *a, **k: pytest.fail("generated again"))
    sampler = toy_model.default_sampler(steps=STEPS, seed=0)
    again = harden(toy_model, out, rounds=1, with_rest=False, sampler=sampler, keep="looks", window=WINDOW)
    pd.testing.assert_frame_equal(again.false_positives, pd.read_parquet(out / "false_positives.parquet"))
    with pytest.raises(InputError, match="it differs in keep"):
        harden(toy_model, out, rounds=1, with_rest=False, sampler=sampler)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--keep", "signal"], "keep is 'signal'; give phi or looks"),
        (["--window", "8"], "a window is for keep='looks'"),
        (["--keep", "looks", "--window", "0"], "window is 0"),
    ],
)
def test_what_cannot_be_kept_is_one_line_before_a_model_is_loaded(
    options: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("harden", "demur/none", "--out", str(tmp_path / "a"), *options) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and not (tmp_path / "a").exists()


def test_every_place_of_a_joint_probe_on_looks_is_on_one_scale() -> None:
    rng, looks = np.random.default_rng(0), Looks.of(4, 2)
    y = np.arange(200) % 2
    states = rng.normal(size=(200, len(looks) * looks.means, 2, 6)) * np.arange(1, 9)[:, None, None][: len(looks) * 2]
    states[y == 1, :, :, 0] += np.linspace(0, 20, len(looks) * 2)[:, None]
    guard = ProbeGuard(places=looks, joint=True).fit(Signal(states, None), y)
    errors = np.stack([guard.place_error(states[y == 0][:, place], place) for place in range(states.shape[1])])
    np.testing.assert_allclose(errors.std(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(errors.mean(axis=1), 0, atol=1e-5)
