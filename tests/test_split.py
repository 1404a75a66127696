"""A network that is split over processes records what the whole one does; what cannot be split is refused by name."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import demur
from demur import InputError, Recording, record
from demur.bundled import bundled_prompts
from demur.models import Model
from demur.models.parallel import split_options
from demur.samplers import Autoregressive
from demur.serve import make_app
from demur.studies import harden
from split_worker import PROMPTS, SETTINGS

Said = Mapping[str, Any]


def torchrun(*command: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    """A program in several processes of one thread, which find each other at a free port."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.run(
        [*start, *command], env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Said]]:
    folder = tmp_path_factory.mktemp("split")
    ran = torchrun(str(Path(__file__).with_name("split_worker.py")), str(folder))
    assert ran.returncode == 0, ran.stderr[-3000:]
    return folder, [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def model() -> Model:
    return demur.load("demur/tiny-ar", device="cpu")


def test_states_tokens_and_fingerprint_are_those_of_the_whole_network(
    split: tuple[Path, list[Said]], model: Model
) -> None:
    folder, said = split
    plain, found = record(model, PROMPTS, **SETTINGS), Recording(folder / "r")
    np.testing.assert_allclose(found.phi, plain.phi, rtol=1e-4, atol=1e-4)
    assert found.table["text"].tolist() == plain.table["text"].tolist()
    assert found.provenance.fingerprint == plain.provenance.fingerprint == said[0]["fingerprint"]
    assert said[0]["former"] == model.former_fingerprint
    assert dict(found.provenance.execution) == {"tp_plan": "auto", "tp_size": 2}
    assert found.provenance.differences(plain.provenance) == []
    assert [one["share"] for one in said] == [[640, 1280]] * 2


def test_sampled_tokens_are_those_of_the_whole_network(split: tuple[Path, list[Said]], model: Model) -> None:
    drawn = record(model, PROMPTS, Autoregressive(steps=6, temperature=1.0, seed=3), layers=("last",))
    assert Recording(split[0] / "drawn").table["text"].tolist() == drawn.table["text"].tolist()


def test_a_fault_of_the_first_process_ends_all_and_all_go_on_with_the_missing_rows(
    split: tuple[Path, list[Said]],
) -> None:
    for one in split[1]:
        assert one["broken"] == "the disk is full"
        assert one["rest"] == [2, 1]
        assert one["rows"] == len(PROMPTS)
        assert "holds another recording" in one["other"]
        assert "a folder that all of them see" in one["nowhere"]
        assert "demur check runs in one" in one["study"]
        assert "different recordings, which differ in key, inputs" in one["differ"]
        assert "were edited" in one["edited"]
    assert split[1][0]["first"] == split[1][1]["first"]


def test_the_command_records_with_it_and_speaks_once(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "tea"}\n')
    more = ["--steps", "2", "--out", str(tmp_path / "r"), "--tp-plan", "auto"]
    ran = torchrun("-m", "demur", "record", "demur/tiny-ar", str(prompts), *more)
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.count("1 prompts") == 1
    assert Recording(tmp_path / "r").provenance.execution["tp_plan"] == "auto"


@pytest.mark.parametrize(
    ("name", "options", "named"),
    [
        ("tiny-ar", {}, "torchrun --nproc-per-node"),
        ("tiny-ar", {"device": "cpu"}, "device and tp_plan exclude"),
        ("tiny-ar", {"device_map": "auto"}, "device_map and tp_plan exclude"),
        ("tiny-ar", {"compile": True}, "compile and tp_plan exclude"),
        ("tiny-ar", {"tp_plan": "colwise"}, "give 'auto'"),
        ("tiny-diffusion", {}, "a diffusion model"),
    ],
    ids=str,
)
def test_what_cannot_be_split_is_one_line(name: str, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        demur.load(f"demur/{name}", **{"tp_plan": "auto", **options})


def test_heads_that_do_not_divide_and_classes_without_a_plan_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import GPT2Config, LlamaConfig

    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match="6 num_key_value_heads cannot be split over 4"):
        split_options(LlamaConfig(hidden_size=96, num_attention_heads=12, num_key_value_heads=6), "m")
    with pytest.raises(InputError, match="no tensor-parallel plan for gpt2"):
        split_options(GPT2Config(), "m")


def test_a_quantised_checkpoint_is_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("demur.models.loading.quantisation_of", lambda *_: "bitsandbytes")
    with pytest.raises(InputError, match="is quantised, which is not supported with tp_plan"):
        demur.load("demur/tiny-ar", tp_plan="auto")


def test_jobs_of_one_process_refuse_a_split_model(model: Model, tmp_path: Path) -> None:
    two = dataclasses.replace(model, execution={"tp_plan": "auto", "tp_size": 2})
    jobs: dict[str, Callable[[], object]] = {
        "an engine": lambda: record(two, PROMPTS, engine=cast(Any, object()), out=tmp_path / "r"),
        "demur check": lambda: demur.check(two),
        "demur harden": lambda: harden(two, tmp_path / "h"),
        "a study": lambda: demur.study(two, bundled_prompts("demur/toy")[0].parent, tmp_path / "s"),
        "the server": lambda: make_app(two, []),
    }
    for name, job in jobs.items():
        with pytest.raises(InputError, match=f"{name} runs in one"):
            job()
    assert list(tmp_path.iterdir()) == []
