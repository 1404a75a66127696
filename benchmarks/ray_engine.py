"""Ray's workers against processes of `--part`: rows, kills on the way, and what Ray costs on top.

The toy prompts, repeated with ids of their own, are recorded three ways: in one process; by `--engine ray` with two
workers, of which one is killed on the way and then the driver, which is started again; and, in turn with undisturbed
Ray, by two processes of `--part` that are merged. Processor seconds are those of all processes of a job, read from
/proc twice a second, so they hold on a machine that does other work too; wall seconds do not.

    python benchmarks/ray_engine.py [--prompts 2000] [--steps 32] [--batch-size 16] [--rounds 2]
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import demur
from demur.prompts import write_prompts
from demur.studies import PROMPT_SETS
from machine import RESULTS, write_result

MODEL = "demur/tiny-ar"
TICKS = os.sysconf("SC_CLK_TCK")
Watcher = Callable[[subprocess.Popen[bytes]], None]


def write_many(path: Path, count: int) -> None:
    """`count` toy prompts, each under an id of its own."""
    known = [prompt for name in PROMPT_SETS for prompt in demur.read_prompts(f"demur/toy/{name}")]
    write_prompts([replace(known[n % len(known)], id=f"{n}") for n in range(count)], path)


def processor_seconds(session: int) -> dict[int, float]:
    """Processor seconds so far of each process of a session that is alive."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[3]) == session:
            found[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    return found


def run(commands: Sequence[Sequence[str]], watch: Watcher = lambda child: None) -> dict[str, float]:
    """Wall and processor seconds of commands that run beside each other."""
    began, used = time.perf_counter(), dict[int, float]()
    children = [subprocess.Popen(command, start_new_session=True) for command in commands]
    while any(child.poll() is None for child in children):
        for child in children:
            used |= processor_seconds(child.pid)
            watch(child)
        time.sleep(0.5)
    return {"seconds": time.perf_counter() - began, "cpu_seconds": sum(used.values())}


def shards(out: Path) -> int:
    return len(list(out.glob("shards/*.parquet")))


class Kills:
    """Kills a worker once two shards are there, and the driver a few shards later."""

    def __init__(self, out: Path) -> None:
        self.out, self.worker, self.driver = out, 0, 0

    def __call__(self, driver: subprocess.Popen[bytes]) -> None:
        there = shards(self.out)
        if not self.worker and there >= 2:
            found = subprocess.run(
                ["pgrep", "-s", str(driver.pid), "-f", "ray::Worker"], capture_output=True, text=True
            )
            for pid in found.stdout.split()[:1]:
                os.kill(int(pid), signal.SIGKILL)
                self.worker = there
        elif self.worker and not self.driver and there >= self.worker + 4:
            driver.send_signal(signal.SIGKILL)
            self.driver = there


def compared(found: Path, wanted: Path) -> dict[str, Any]:
    """Whether two recordings hold the same rows, read a shard at a time."""
    one, other = demur.Recording(found), demur.Recording(wanted)
    tables = [recording.table.drop(columns="seconds") for recording in (one, other)]
    rows = np.concatenate([arrays["rows"] for arrays in one.shards()])
    return {
        "rows": len(rows),
        "distinct_rows": len(np.unique(rows)),
        "tables_equal": bool(tables[0].equals(tables[1])),
        "states_equal": bool(np.array_equal(one.phi, other.phi)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=2_000)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "ray_engine.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root, prompts = Path(folder), Path(folder) / "prompts.jsonl"
        write_many(prompts, given.prompts)

        def command(name: str, *more: str) -> list[str]:
            settings = ["--steps", str(given.steps), "--batch-size", str(given.batch_size), "--device", "cpu", "-q"]
            begun = [sys.executable, "-m", "demur", "record", MODEL, str(prompts), "--out", str(root / name)]
            return [*begun, *settings, *more]

        ray = ("--engine", "ray", "--ray-actors", "2")
        local = run([command("local")])
        kills = Kills(root / "killed")
        first = run([command("killed", *ray)], kills)
        second = run([command("killed", *ray)])
        same = compared(root / "killed", root / "local")
        rounds: dict[str, list[dict[str, float]]] = {"ray": [], "parts": []}
        for number in range(given.rounds):
            rounds["ray"].append(run([command(f"ray-{number}", *ray)]))
            names = [f"part-{number}-{index}" for index in (1, 2)]
            parts = [command(name, "--part", f"{index}/2") for index, name in enumerate(names, start=1)]
            recorded = run(parts)
            folders = [str(root / name) for name in names]
            merged = run([[sys.executable, "-m", "demur", "merge", *folders, "--out", str(root / f"merged-{number}")]])
            rounds["parts"].append({name: recorded[name] + merged[name] for name in recorded})
    ratios = {
        name: median(a[name] / b[name] for a, b in zip(rounds["ray"], rounds["parts"], strict=True)) - 1
        for name in ("seconds", "cpu_seconds")
        if given.rounds
    }
    killed = {"worker_at_shard": kills.worker, "driver_at_shard": kills.driver, "runs": [first, second], **same}
    settings = {"prompts": given.prompts, "steps": given.steps, "batch_size": given.batch_size, "workers": 2}
    write_result(given.out, {**settings, "local": local, "killed": killed, "rounds": rounds, "ray_over_parts": ratios})


if __name__ == "__main__":
    main()
