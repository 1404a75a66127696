"""Workers and drivers that die or hang at random moments: nothing is lost, nothing is there twice.

`DEMUR_RAY_ROUNDS` is the number of rounds (2), `DEMUR_RAY_SEED` that of the first (0); a round says its seed when it
fails. With `DEMUR_RAY_STORE`, an empty folder, batches go through that store. Needs Ray: `make test-ray`.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest

import demur
from demur import Recording, record
from demur.engines.ray import RayEngine
from demur.recording import folder as files

ROUNDS = int(os.environ.get("DEMUR_RAY_ROUNDS", "2"))
STORE = os.environ.get("DEMUR_RAY_STORE")
SEED = int(os.environ.get("DEMUR_RAY_SEED", "0"))
PROMPTS = [f"tell me about {'tea and ' * (n % 6)}bread, {n} times" for n in range(96)]
SETTINGS: dict[str, Any] = {"steps": 8, "batch_size": 4}
HANG_SECONDS = 20.0
KINDS = ("worker", "worker", "driver", "hang")
"""What happens in a round, drawn; every fourth hangs, which takes longest."""


@pytest.fixture(scope="module")
def engine() -> Iterator[RayEngine]:
    with RayEngine(actors=2, timeout=HANG_SECONDS, store=STORE) as made:
        yield made


class Disturbed:
    """The engine, with something done to it before some batches."""

    versions: ClassVar[dict[str, str]] = {}

    def __init__(self, engine: RayEngine, at: set[int], disturb: Callable[[], None]) -> None:
        self.engine, self.at, self.disturb, self.require = engine, at, disturb, engine.require

    def batches(self, *arguments: Any) -> Iterator[Any]:
        for count, batch in enumerate(self.engine.batches(*arguments)):
            if count in self.at:
                self.disturb()
            yield batch


def workers() -> list[int]:
    """Process ids of Ray's workers that hold a model, of this user."""
    found = subprocess.run(["pgrep", "-f", "ray::Worker"], capture_output=True, text=True).stdout
    return [int(one) for one in found.split()]


def sent(which: signal.Signals, rng: random.Random) -> None:
    for _ in range(600):  # one that died may not be there again yet
        if alive := workers():
            os.kill(rng.choice(alive), which)
            return
        time.sleep(0.2)
    raise AssertionError("no worker came back")


def killed_driver(rng: random.Random, prompts: Path, out: Path) -> None:
    """A driver of a cluster of its own that is killed while it records, so that another goes on."""
    command = [sys.executable, "-m", "demur", "record", "demur/tiny-ar", str(prompts), "--out", str(out), "-q"]
    command += ["--steps", "8", "--batch-size", "4", "--engine", "ray", "--ray-actors", "2", "--device", "cpu"]
    command += ["--ray-store", STORE] if STORE else []
    child = subprocess.Popen(command, start_new_session=True)
    kept = rng.randrange(1, 23)
    while child.poll() is None and len(list(out.glob("shards/*.parquet"))) < kept:
        time.sleep(0.01)
    assert child.poll() is None, "the driver ended before it was killed"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert 1 <= len(files.shard_numbers(out)) < 24


@pytest.mark.parametrize("seed", range(SEED, SEED + ROUNDS))
def test_a_round_loses_nothing_and_doubles_nothing(
    model: demur.Model,
    engine: RayEngine,
    whole: Recording,
    tmp_path: Path,
    seed: int,
    record_property: Callable[[str, Any], None],
) -> None:
    rng, out, done = random.Random(seed), tmp_path / "r", Counter[str]()
    kind = KINDS[seed % len(KINDS)]
    if kind == "driver":
        prompts = tmp_path / "prompts.jsonl"
        rows = zip(whole.table["id"], whole.table["prompt"], strict=True)
        prompts.write_text("".join(f'{{"id": "{name}", "prompt": "{text}"}}\n' for name, text in rows))
        killed_driver(rng, prompts, out)
        done["driver"] += 1
        found = record(model, prompts, **SETTINGS, engine=engine if STORE else None, out=out)
    else:
        at = set(rng.sample(range(1, 20), rng.randrange(1, 3) if kind == "worker" else 1))
        which = signal.SIGKILL if kind == "worker" else signal.SIGSTOP
        done[kind] += len(at)
        disturbed = Disturbed(engine, at, lambda: sent(which, rng))
        found = record(model, PROMPTS, **SETTINGS, engine=disturbed, out=out)  # type: ignore[arg-type]
    for name, times in done.items():
        record_property(f"ray {name}", times)
    np.testing.assert_array_equal(found.phi, whole.phi, err_msg=f"seed {seed}")
    table, wanted = (one.table.drop(columns="seconds") for one in (found, whole))
    pd.testing.assert_frame_equal(table, wanted)
    rows_kept = np.concatenate([arrays["rows"] for arrays in found.shards()])
    assert sorted(rows_kept.tolist()) == list(range(len(PROMPTS))), f"seed {seed}"
