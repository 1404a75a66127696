"""What the signal and the guard cost beside generation: made-up phi and signals in, seconds out.

Measured in rounds, medians reported: phi to verdict (signal and guard) for a batch and for one generation at a
time, the formula alone, the guard's fit on 1,200 signals, and how many signals a second it scores. With the
seconds a generation takes, from the command line or from benchmarks/results/recording.json, also the overhead.
BLAS threads are as the environment says; OMP_NUM_THREADS=1 gives the figures for one core.

    OMP_NUM_THREADS=1 python benchmarks/guard.py [--steps 32] [--width 896] [--recording-json PATH]
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import demur
from machine import RESULTS, write_result


def seconds(work: Callable[[], object], calls: int, rounds: int) -> float:
    """Median over rounds of the seconds one call takes, after a round to warm up."""
    found = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        for _ in range(calls):
            work()
        found.append((time.perf_counter() - started) / calls)
    return median(found[1:])


def harmless_signals(rng: np.random.Generator, count: int, steps: int) -> np.ndarray:
    """Smooth, high, a little noisy, with a dip in three of ten."""
    t = np.linspace(0, 1, steps)
    level, slope = 0.85 + 0.08 * rng.uniform(-1, 1, (count, 1)), 0.2 * rng.uniform(-1, 1, (count, 1))
    dips = rng.uniform(0, 0.5, (count, 1)) * np.exp(-(((t - rng.random((count, 1))) / 0.08) ** 2))
    sigma = level + slope * (t - 0.5) - dips * (rng.random((count, 1)) < 0.3) + 0.02 * rng.normal(size=(count, steps))
    return sigma.clip(0, 1).astype(np.float32)


def measure(steps: int, width: int, batch_size: int, rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    harmless, harmful = rng.normal(size=(2, steps, 1, width)).astype(np.float32)
    anchors = demur.Anchors(harmless, harmful, layers=(24,))
    phi = rng.normal(size=(512, steps, width)).astype(np.float32)
    train, held_out = harmless_signals(rng, 1200, steps), harmless_signals(rng, 200, steps)
    fit = seconds(lambda: demur.SRIGuard(random_state=0).fit(train), 1, min(rounds, 5))
    guard = demur.SRIGuard(random_state=0).fit(train, calibration=held_out)
    rest = held_out - train.mean(axis=0)
    many = np.tile(train, (100, 1))
    batch, one = phi[:batch_size], phi[:1]
    return {
        "signal_and_guard_seconds_per_generation": seconds(lambda: guard.predict(anchors.score(batch)), 50, rounds)
        / len(batch),
        "signal_and_guard_seconds_one_at_a_time": seconds(lambda: guard.predict(anchors.score(one)), 50, rounds),
        "signal_seconds_per_trajectory": seconds(lambda: anchors.score(phi), 1, rounds) / len(phi),
        "guard_fit_seconds": fit,
        "guard_fit_signals": len(train),
        "guard_reconstruction_r2": float(1 - guard.errors(held_out).sum() / (rest**2).sum()),
        "guard_signals_per_second": len(many) / seconds(lambda: guard.errors(many), 1, rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--width", type=int, default=896)
    parser.add_argument("--batch-size", type=int, default=16, help="generations that are scored together")
    parser.add_argument("--rounds", type=int, default=15)
    generation = parser.add_mutually_exclusive_group()
    generation.add_argument("--generation-seconds-per-prompt", type=float)
    generation.add_argument("--recording-json", type=Path, help="result of benchmarks/recording.py")
    parser.add_argument("--out", type=Path, default=RESULTS / "guard.json")
    given = parser.parse_args()
    result: dict[str, Any] = {
        "steps": given.steps,
        "width": given.width,
        "batch_size": given.batch_size,
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        **measure(given.steps, given.width, given.batch_size, given.rounds),
    }
    generation_seconds = given.generation_seconds_per_prompt
    if given.recording_json:
        generation_seconds = json.loads(given.recording_json.read_text())["record_seconds_per_prompt"]
    if generation_seconds:
        result["generation_seconds_per_prompt"] = generation_seconds
        share = result["signal_and_guard_seconds_per_generation"] / generation_seconds
        result["overhead_percent"] = 100 * share
    write_result(given.out, result)


if __name__ == "__main__":
    main()
