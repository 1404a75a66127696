"""Parts of one run: merged they are the run itself, and nothing else merges."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import demur
from demur import InputError, Recording, merge, record
from demur.cli import app
from demur.files import writing
from demur.recording import folder as files

PROMPTS = [f"tell me about {'tea and ' * (n % 5)}bread" for n in range(22)]  # lengths mixed, each several times
SETTINGS: dict[str, Any] = {"steps": 4, "batch_size": 4}


@pytest.fixture(scope="module")
def model() -> demur.Model:
    return demur.load("demur/tiny-ar", device="cpu")


@pytest.fixture(scope="module")
def whole(model: demur.Model, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record(model, PROMPTS, **SETTINGS, out=tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def parts(model: demur.Model, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("parts")
    for index in (1, 2, 3):
        record(model, PROMPTS, **SETTINGS, part=(index, 3), out=folder / str(index))
    return [folder / str(index) for index in (1, 2, 3)]


def contents(recording: Recording) -> dict[str, np.ndarray]:
    """Every stored array in the order of the prompts."""
    shards = list(recording.shards())
    order = np.argsort(np.concatenate([one["rows"] for one in shards]))
    return {name: np.concatenate([one[name] for one in shards])[order] for name in shards[0]}


def require_same(found: Recording, wanted: Recording) -> None:
    there, here = contents(found), contents(wanted)
    assert there.keys() == here.keys()
    for name, values in here.items():
        np.testing.assert_array_equal(there[name], values, err_msg=name)
    pd.testing.assert_frame_equal(found.table.drop(columns="seconds"), wanted.table.drop(columns="seconds"))
    left_out = {"complete": None}
    assert {**found.manifest, **left_out} == {**wanted.manifest, **left_out}
    assert found.provenance == wanted.provenance


def test_merged_parts_are_bitwise_what_one_run_gives(parts: list[Path], whole: Recording, tmp_path: Path) -> None:
    require_same(merge(parts[::-1], tmp_path / "m"), whole)
    require_same(Recording(tmp_path / "m"), whole)


def test_a_part_is_a_recording_of_its_own_prompts(parts: list[Path], whole: Recording) -> None:
    opened = [Recording(part) for part in parts]
    assert sum(map(len, opened)) == len(PROMPTS) and min(map(len, opened)) >= 6
    assert opened[1].phi.shape == (len(opened[1]), 4, 1, whole.phi.shape[-1])
    assert sorted(opened[0].table["id"]) != sorted(opened[1].table["id"])


def test_samples_of_one_prompt_draw_in_parts_what_they_draw_in_one_run(model: demur.Model, tmp_path: Path) -> None:
    sampler = demur.samplers.Autoregressive(steps=6, temperature=1.5, seed=3)
    twins = ["tell me about tea"] * 6
    one = record(model, twins, sampler, batch_size=2)
    for index in (1, 2, 3):
        record(model, twins, sampler, batch_size=2, part=(index, 3), out=tmp_path / str(index))
    assert len(set(one.table["text"])) > 1
    require_same(merge([tmp_path / str(index) for index in (1, 2, 3)], tmp_path / "m"), one)


def test_forced_responses_are_parted_with_their_prompts(model: demur.Model, tmp_path: Path) -> None:
    texts = [f"sure here is {n}" for n in range(len(PROMPTS))]
    one = record(model, PROMPTS, **SETTINGS, responses=texts)
    for index in (1, 2):
        record(model, PROMPTS, **SETTINGS, responses=texts, part=(index, 2), out=tmp_path / str(index))
    require_same(merge([tmp_path / "1", tmp_path / "2"], tmp_path / "m"), one)


def test_a_part_goes_on_where_it_stopped_and_is_no_other_part(
    model: demur.Model, parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(files, "write_table", full)
        record(model, PROMPTS, **SETTINGS, part=(2, 3), out=tmp_path / "p")
    with pytest.raises(InputError, match=r"differs in .*part"):
        record(model, PROMPTS, **SETTINGS, part=(1, 3), out=tmp_path / "p")
    with pytest.raises(InputError, match=r"differs in .*part"):
        record(model, PROMPTS, **SETTINGS, out=tmp_path / "p")
    record(model, PROMPTS, **SETTINGS, part=(2, 3), out=tmp_path / "p")
    assert Recording(tmp_path / "p").table["id"].tolist() == Recording(parts[1]).table["id"].tolist()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"part": (2, 2)}, r"of \(3 against 2\)"),
        ({"batch_size": 3}, r"batch_size \(4 against 3\)"),
        ({"steps": 3}, r"sampler \(steps"),
        ({"layers": ("middle",)}, r"layers"),
        ({"prompts": [*PROMPTS[:-1], "tell me about moss"]}, "prompts"),
        ({"model": "demur/tiny-ar", "family": "other weights"}, "fingerprint"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_parts_of_two_runs_are_refused_by_what_differs(
    parts: list[Path], tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    model = demur.load("demur/tiny-ar", device="cpu")
    arguments = {"prompts": PROMPTS, "part": (2, 3), **SETTINGS, **change}
    if arguments.pop("family", None):
        model.network.lm_head.weight.data[0] += 1
    arguments.pop("model", None)
    record(model, **arguments, out=tmp_path / "other")
    with pytest.raises(InputError, match=rf"two runs, which differ in .*{named}"):
        merge([parts[0], tmp_path / "other", parts[2]], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_parts_of_two_versions_are_refused(model: demur.Model, parts: list[Path], tmp_path: Path) -> None:
    from importlib.metadata import version

    from demur.recording import recorder

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(recorder, "version", lambda name: "0.0" if name == "torch" else version(name))
        record(model, PROMPTS, **SETTINGS, part=(2, 3), out=tmp_path / "other")
    with pytest.raises(InputError, match=r"differ in versions \(torch\)"):
        merge([parts[0], tmp_path / "other", parts[2]], tmp_path / "m")


def test_missing_double_and_unfinished_parts_are_named(
    model: demur.Model, parts: list[Path], whole: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"2 of the 3 parts were given; missing: 2/3"):
        merge([parts[0], parts[2]], tmp_path / "m")
    with pytest.raises(InputError, match="is part 1/3, and so is"):
        merge([*parts, parts[0]], tmp_path / "m")
    with pytest.raises(InputError, match="is no part of a run"):
        merge([whole.path], tmp_path / "m")
    with pytest.raises(InputError, match="no parts to merge"):
        merge([], tmp_path / "m")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(files, "write_table", _stopped)
        record(model, PROMPTS, **SETTINGS, part=(3, 3), out=tmp_path / "3")
    with pytest.raises(InputError, match="3: holds 6 of 6 prompts; run the command that began it once more"):
        merge([*parts[:2], tmp_path / "3"], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def _stopped(*arguments: Any, **options: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("part", [(0, 3), (4, 3), (1.0, 3), (1, 2, 3), "1/3", (True, 3)], ids=str)
def test_a_part_that_is_none_is_refused(model: demur.Model, part: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 <= i <= n"):
        record(model, PROMPTS, **SETTINGS, part=part, out=tmp_path / "p")


def test_more_parts_than_batches_are_refused_in_every_part(model: demur.Model, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="part 1/7: the 22 prompts make 6 batches of 4; give at most 6 parts"):
        record(model, PROMPTS, **SETTINGS, part=(1, 7), out=tmp_path / "p")


def test_a_damaged_part_is_named_and_no_whole_recording_is_left(parts: list[Path], tmp_path: Path) -> None:
    copy = _copy(parts[1], tmp_path / "2")
    shard = sorted((copy / "shards").glob("*.safetensors"))[-1]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match=shard.name):
        merge([parts[0], copy, parts[2]], tmp_path / "m")
    with pytest.raises(InputError):
        Recording(tmp_path / "m")


def test_a_merge_that_is_killed_anywhere_goes_on(
    parts: list[Path], whole: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dying(after: int) -> Callable[..., None]:
        left: Iterator[int] = iter(range(after, -1, -1))

        def write(*arguments: Any, **options: Any) -> None:
            if next(left) == 0:
                raise KeyboardInterrupt
            writing_whole(*arguments, **options)

        return write

    writing_whole = writing.write_whole
    for after in range(1, 40, 3):
        folder = tmp_path / str(after)
        with monkeypatch.context() as patched:
            patched.setattr("demur.files.tables.write_whole", write := dying(after))
            patched.setattr(files, "write_whole", write)
            try:
                merge(parts, folder)
            except KeyboardInterrupt:
                continue_from = folder
            else:
                break
        require_same(merge(parts, continue_from), whole)
    assert after > 4


def test_the_commands_record_parts_and_merge_them(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(f'{{"prompt": "{text}"}}\n' for text in PROMPTS[:8]))
    common = ["record", "demur/tiny-ar", str(prompts), "--steps", "3", "--batch-size", "2", "--device", "cpu"]
    runner = CliRunner()
    for index in (1, 2):
        ran = runner.invoke(app, [*common, "--part", f"{index}/2", "--out", str(tmp_path / f"p{index}")])
        assert ran.exit_code == 0, ran.output
    ran = runner.invoke(app, ["merge", str(tmp_path / "p1"), str(tmp_path / "p2"), "--out", str(tmp_path / "m")])
    assert ran.exit_code == 0 and "8 prompts of 2 parts" in ran.output
    assert runner.invoke(app, [*common, "--out", str(tmp_path / "whole")]).exit_code == 0
    require_same(Recording(tmp_path / "m"), Recording(tmp_path / "whole"))
    ran = runner.invoke(app, [*common, "--part", "3/2", "--out", str(tmp_path / "p3")])
    assert isinstance(ran.exception, InputError) and "--part is '3/2'" in str(ran.exception)


def _copy(folder: Path, new: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, new))
