"""The benchmarks run, write what they promise, and compare ways that give the same tokens."""

import importlib
import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from demur.models import Model, load
from demur.studies import run_study

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALL = "--batch-size 2 --prompts 4 --prompt-length 8 --steps 4 --response-length 8"
FAMILIES = ("autoregressive", "masked-diffusion")
Script = Callable[[str], Any]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """A benchmark as a module, by its name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in ("gpu", "diffusion", "blocks", "dream", "defenses", "machine"):
        sys.modules.pop(name, None)


def test_the_gpu_benchmark_writes_speeds_memory_and_overheads_of_both_families(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    command = f"gpu.py --shapes tiny --device cpu --rounds 1 {SMALL} --out {out}".split()
    done = subprocess.run([sys.executable, *command], cwd=BENCHMARKS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert str(tmp_path) not in out.read_text()
    assert {"command", "date", "machine", "shapes", "device", "dtype", "batch_size", "rounds"} <= found.keys()
    assert tuple(found["families"]) == FAMILIES
    for result in found["families"].values():
        require_result(result)


def require_result(result: dict[str, Any]) -> None:
    assert len(result["rounds"]) == 1
    assert tuple(result["ways"]) == ("plain", "record", "guarded", "released")
    for way in result["ways"].values():
        for name in ("seconds_per_prompt", "tokens_per_second", "steps_per_second", "peak_mb"):
            assert way[name] > 0
        assert way["added_mb"] >= 0
    assert result["ways"]["guarded"]["signal_and_guard_seconds_per_prompt"] > 0
    assert result["signal_and_guard_percent"] > 0
    assert result["released_over_record"] > 0
    seconds = {name: result["ways"][name]["seconds_per_prompt"] for name in ("plain", "record", "guarded")}
    for name in ("record", "guarded"):
        expected = 100 * (seconds[name] / seconds["plain"] - 1)
        assert result[f"{name}_overhead_percent"] == pytest.approx(expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_generation_gives_the_tokens_that_are_recorded(script: Script, family: str, tmp_path: Path) -> None:
    gpu = script("gpu")
    model = gpu.make_model(family, gpu.SHAPES["tiny"][family], torch.float32, torch.device("cpu"))
    given = Namespace(prompts=3, prompt_length=6, steps=4, response_length=10, batch_size=2)
    work = gpu.make_work(model, given)
    plain = (gpu.plain_autoregressive if family == "autoregressive" else gpu.plain_diffusion)(work)
    recording = gpu.recorded(work, str(tmp_path))
    recorded = [recording.steps_tokens(row).predicted[-1].tolist() for row in range(3)]
    assert plain.tolist() == recorded


@pytest.mark.parametrize(("module", "layers"), [("diffusion", "BLOCKS"), ("dream", "LAYERS")])
def test_both_ways_of_a_masked_diffusion_benchmark_give_the_same_tokens(
    script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, layers: str
) -> None:
    diffusion = script(module)
    for name, value in {"WIDTH": 8, layers: 1, "HEADS": 2, "INNER": 8}.items():
        monkeypatch.setattr(diffusion, name, value)
    parameters = diffusion.write_model(tmp_path)
    model = load(tmp_path, device="cpu")
    prompts = torch.randint(0, 126000, (2, 5), generator=torch.Generator().manual_seed(1))
    assert parameters == sum(one.numel() for one in model.network.parameters())
    assert diffusion.official_way(model, prompts, 4, 10) == diffusion.demur_way(model, prompts, 4, 10)


def test_the_three_ways_of_the_block_benchmark_give_the_same_tokens(
    script: Script, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocks = script("blocks")
    sizes = {"WIDTH": 16, "LAYERS": 2, "HEADS": 2, "PAIRS": 1, "SIZE": 8, "INNER": 16, "VOCABULARY": 90, "MASK": 89}
    for name, value in sizes.items():
        monkeypatch.setattr(blocks, name, value)
    parameters = blocks.write_model(tmp_path)
    model = load(tmp_path, device="cpu")
    prompts = torch.randint(0, 80, (2, 8), generator=torch.Generator().manual_seed(1))
    assert parameters == sum(one.numel() for one in model.network.parameters())
    ours = blocks.demur_way(model, prompts, 6, 24)
    assert blocks.official_way(model, prompts, 6, 24) == ours == blocks.cached_way(model, prompts, 6, 24)
    assert all(len(row) == 24 and 89 not in row for row in ours)


def test_the_defense_benchmark_times_every_way_on_the_same_prompts(
    script: Script, toy_model: Model, toy_prompts: Path, tmp_path: Path
) -> None:
    study = run_study(toy_model, toy_prompts, tmp_path, steps=8, quantile=0.95)
    found = script("defenses").measure(toy_model, study.path, count=4, batch_size=4, rounds=2)
    assert found["prompts"] == {"test_harmless": 4, "test_harmful": 4, "test_attacks": 4}
    assert len(found["overhead"]) == 6 and all(share > 0 for share in found["overhead"].values())
    assert len(found["rounds"]) == 2 and len(found["guarded_over_unguarded"]) == 2 * len(found["prompts"])
    ratios = [min(one["perplexity"], one["self-examine"]) / one["SRIGuard"] for one in found["rounds"]]
    assert found["cheapest_model_over_sri_guard"] == pytest.approx(sum(ratios) / 2)
