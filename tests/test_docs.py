"""The examples of the pages run, one after another, as a reader would run them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import demur
from demur.bundled import bundled_prompts

DOCS = Path(__file__).parent.parent / "docs"
LAYERS = ("middle", "last")


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


def toy(name: str, count: int) -> list[str]:
    rows = demur.prompts.read_prompts(bundled_prompts(f"demur/toy/{name}")[0])
    return [str(row.prompt) for row in rows[:count]]


@pytest.mark.filterwarnings("ignore:.*are too few for the quantile")
def test_the_examples_of_the_guards_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = demur.load("demur/tiny-ar")
    harmless, harmful = toy("guard_train_harmless", 340), toy("anchors_harmful", 60)
    sides = [demur.record(model, prompts, layers=LAYERS) for prompts in (harmless[:60], harmful)]
    anchors = demur.Anchors.fit(*sides)
    sigma = anchors.signal(demur.record(model, harmless[:200]))
    inputs = model.tokenizer([harmless[0], harmful[0]], return_tensors="pt", padding=True)
    given: dict[str, Any] = {"model": model, "network": model.network, "anchors": anchors, "sigma": sigma}
    given |= {"sigma_train": sigma[:100], "sigma_held_out": sigma[100:], "sigma_t": np.asarray(sigma)[:16, 0]}
    given |= {"train": harmless[:100], "held_out": harmless[100:200], "harmful": harmful}
    given |= {"harmless_prompts": harmless, "prompts": harmful[:4], "inputs": inputs}
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text('{"prompt": "tell me about tea"}\n', encoding="utf-8")
    folder = Path("runs/qwen")
    folder.mkdir(parents=True)
    for example in examples("guard.md"):
        if "runs/qwen" in example:  # what a study would have kept
            given["direction"].save(folder / "direction_looks.safetensors")
            given["stream"].save(folder / "streaming_direction_guard.safetensors")
        exec(example, given)
    assert given["output"].shape[0] == len(given["stopping"].stopped_at) == 2
    assert list(given["table"]) == ["id", "prompt", "stopped_at", "text", "tokens"]
