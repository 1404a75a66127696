"""Data walks one way, once: how often a command reads the shards of a recording."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import demur
from demur.models import Model
from demur.recording import Recording
from demur.recording import folder as files
from demur.recording.derived import Deriver, derive
from demur.recording.held import Held, Shown
from demur.report import write_viewer
from demur.signal import Anchors
from demur.studies import PROMPT_SETS, Study, compare_runs, run_study
from demur.studies.study.derivers import text_signals

STEPS = 6
LIMIT = 24
Reads = Counter[tuple[Path, int]]


@pytest.fixture(scope="module")
def model(toy_folder: Path) -> Model:
    return demur.load(toy_folder, device="cpu")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """How often each shard was read, by its recording and number."""
    counted: Reads = Counter()
    read = files.read_shard_arrays

    def counting(folder: Path, number: int, mark: files.ShardMark | None = None) -> files.Arrays:
        counted[folder, number] += 1
        return read(folder, number, mark)

    monkeypatch.setattr(files, "read_shard_arrays", counting)
    return counted


@pytest.fixture(scope="module")
def study(model: Model, toy_prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that counted its reads on the way."""
    out, counted = tmp_path_factory.mktemp("study"), Counter()
    with pytest.MonkeyPatch.context() as patch:
        read = files.read_shard_arrays

        def counting(folder: Path, number: int, mark: files.ShardMark | None = None) -> files.Arrays:
            counted[folder, number] += 1
            return read(folder, number, mark)

        patch.setattr(files, "read_shard_arrays", counting)
        sampler = model.default_sampler(steps=STEPS)
        found = run_study(model, toy_prompts, out, sampler=sampler, batch_size=20, limit=LIMIT, check=False)
    read_often = {place: often for place, often in counted.items() if place[0].is_relative_to(out)}
    assert {folder.name for folder, _ in read_often} >= set(PROMPT_SETS)
    assert set(read_often.values()) == {1}
    return found


def recording_of(study: Study, name: str) -> Recording:
    return Recording(study.path / "recordings" / name)


def test_a_study_reads_every_shard_once(study: Study) -> None:
    assert study.made is not None
    assert set(study.made.recordings) >= set(PROMPT_SETS)


def test_a_second_study_reads_no_shard_but_those_of_anchors(
    study: Study, model: Model, toy_prompts: Path, reads: Reads
) -> None:
    sampler = model.default_sampler(steps=STEPS)
    again = run_study(model, toy_prompts, study.path, sampler=sampler, limit=LIMIT, check=False)
    assert {folder.name for folder, _ in reads} <= {"anchors_harmless", "anchors_harmful"}
    assert set(reads.values()) == {1}
    np.testing.assert_array_equal(again.signals, study.signals)
    np.testing.assert_array_equal(again.references, study.references)
    for name in ("generations", "scores", "rates", "detection", "streaming"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(study, name))


def test_a_comparison_of_studies_and_of_recordings_reads_each_shard_at_most_once(study: Study, reads: Reads) -> None:
    assert study.made is not None
    compare_runs([study.path, study.path])
    assert not reads
    folder = study.path / "recordings" / "test_attacks"
    study.made.anchors.save(folder / "anchors.safetensors")
    compare_runs([folder, folder])
    assert not reads  # the study has kept what the comparison needs


def test_the_viewer_reads_each_shard_once(study: Study, reads: Reads, tmp_path: Path) -> None:
    write_viewer(study.path, tmp_path / "study.html", show_text=True)
    assert reads and set(reads.values()) == {1}
    reads.clear()
    folder = study.path / "recordings" / "test_harmful"
    assert study.made is not None
    study.made.anchors.save(folder / "anchors.safetensors")
    write_viewer(folder, tmp_path / "recording.html")
    assert reads and set(reads.values()) == {1}


def test_what_is_kept_is_what_one_would_compute(study: Study) -> None:
    assert study.made is not None
    recording = recording_of(study, "test_attacks")
    rows = (study.generations["set"] == "test_attacks").to_numpy()
    np.testing.assert_array_equal(study.made.anchors.signal(recording), study.signals[rows])
    np.testing.assert_array_equal(text_signals(recording), study.text_signals[rows])


COUNT = Deriver("count", lambda shard: np.arange(len(shard)) + 1000 * shard.rows, {"of": "rows"})


def test_a_deriver_is_asked_again_where_its_settings_change(study: Study, reads: Reads) -> None:
    recording = recording_of(study, "test_harmless")
    first = derive(recording, [COUNT])["count"]
    assert reads
    reads.clear()
    np.testing.assert_array_equal(derive(recording, [COUNT])["count"], first)
    assert not reads
    derive(recording, [Deriver("count", COUNT.of, {"of": "others"})])
    assert set(reads.values()) == {1}


@pytest.mark.parametrize("values", ["numbers", "texts"])
def test_damaged_values_are_derived_again(study: Study, reads: Reads, values: str) -> None:
    of = COUNT.of if values == "numbers" else lambda shard: [[str(row), "ü"] for row in shard.rows]
    deriver, recording = Deriver(values, of, {}), recording_of(study, "test_harmless")
    first = derive(recording, [deriver])[values]
    (kept,) = (recording.path / "derived").glob(f"{values}.*")
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 1
    kept.write_bytes(content)
    reads.clear()
    again = derive(recording, [deriver])[values]
    assert set(reads.values()) == {1}
    np.testing.assert_array_equal(np.array(again), np.array(first))
    reads.clear()
    np.testing.assert_array_equal(np.array(derive(recording, [deriver])[values]), np.array(first))
    assert not reads


def test_values_of_another_recording_are_not_taken(study: Study, reads: Reads) -> None:
    source, target = (recording_of(study, name) for name in ("test_harmless", "test_harmful"))
    derive(source, [COUNT])
    (target.path / "derived" / "count.safetensors").write_bytes(
        (source.path / "derived" / "count.safetensors").read_bytes()
    )
    reads.clear()
    assert len(derive(target, [COUNT])["count"]) == len(target)
    assert {folder for folder, _ in reads} == {target.path}


def test_a_folder_that_cannot_be_written_loses_no_values(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "read-only file system")

    monkeypatch.setattr("demur.files.writing.os.open", refuse)
    recording = recording_of(study, "test_harmless")
    assert len(derive(recording, [Deriver("unkept", COUNT.of, {})])["unkept"]) == len(recording)


def test_states_that_do_not_fit_into_memory_are_read_a_second_time(study: Study, reads: Reads) -> None:
    harmless, harmful = (recording_of(study, f"anchors_{side}") for side in ("harmless", "harmful"))
    layer = max(harmless.layers)
    small, large = Held(harmless, layer, most=1), Held(harmless, layer)
    anchors = Anchors.fit(Shown(harmless, [small, large]), Shown(harmful, []))
    assert anchors.fingerprint == Anchors.fit(harmless, harmful).fingerprint
    reads.clear()
    from_memory = anchors.signal(large)
    assert not reads
    np.testing.assert_array_equal(anchors.signal(small), from_memory)
    assert set(reads.values()) == {1}
    np.testing.assert_array_equal(anchors.signal(harmless), from_memory)
