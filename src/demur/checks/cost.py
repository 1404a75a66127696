"""Rows about cost, stated and not judged: time beside the network's own work, and memory.

In: a bench. Out: seconds of recording a batch beside transformers' `generate` of the same batch (for a diffusion
model: beside its forward passes alone), and the peak of memory.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch

from demur.checks.bench import SHARED, Bench
from demur.checks.plan import run_once
from demur.checks.result import Row
from demur.checks.truth import generated

ROUNDS = 2
"""Both sides run in turn so many times, and the faster time of each counts."""


def speed_row(bench: Bench) -> Row:
    """Recording a batch beside the network's own work for it."""
    rows = bench.rows[SHARED]
    count, steps = len(rows), bench.sampler.step_count
    recorded = lambda: bench.record(rows, count, sampler=_to_the_end(bench))  # noqa: E731
    other: Callable[[], object]
    if bench.model.traits.left_to_right:
        beside, other = "generate", lambda: generated(bench.model, rows, steps, to_the_end=True)
    elif bench.model.traits.bare_pass:
        beside, other = "its forward passes alone", lambda: _passes(bench)
    else:
        note = "recording runs the parts of the network's own generate, and there is no bare pass beside it"
        return Row("speed", "recording a batch", outcome="not run", note=note)
    times: dict[str, list[float]] = {"record": [], beside: []}
    for _ in range(ROUNDS):
        for name, run in (("record", recorded), (beside, other)):
            started = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - started)
    mine, theirs = min(times["record"]), min(times[beside])
    measured = f"recording {count} prompts in a batch, {steps} steps, beside {beside}"
    value = f"{mine:.2f} s and {theirs:.2f} s, ratio {mine / theirs:.2f}"
    numbers = {"record_seconds": mine, "other_seconds": theirs, "ratio": mine / theirs}
    return Row("speed", measured, value, "stated, not judged", "stated", "", numbers)


def memory_row(bench: Bench) -> Row:
    """The peak of memory: of the device while a batch is recorded, or of this process."""
    device, weights = bench.model.device, _weights(bench)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        bench.record(bench.rows[SHARED], len(bench.rows[SHARED]))
        peak, measured = int(torch.cuda.max_memory_allocated(device)), "peak on the device while a batch is recorded"
    elif sys.platform == "win32":
        return Row("memory", "peak of this process", outcome="not run", note="this system does not tell it")
    else:
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        peak, measured = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "peak of this process so far"
    value = f"{peak / 1e9:.2f} GB, of which {weights / 1e9:.2f} GB are weights"
    return Row("memory", measured, value, "stated, not judged", "stated", "", {"peak": peak, "weights": weights})


def _to_the_end(bench: Bench) -> object:
    """The bench's sampler, without early ends where it can do without them: both sides then do the same work."""
    if not bench.model.traits.left_to_right:
        return bench.sampler
    return bench.model.default_sampler(steps=bench.sampler.step_count, suppress_eos=True)


@torch.no_grad()
def _passes(bench: Bench) -> None:
    longest = max(len(row) for row in bench.rows[SHARED]) + bench.sampler.response_length
    ordinary = bench.rows[SHARED][0][-1]
    ids = torch.full((len(bench.rows[SHARED]), longest), ordinary, dtype=torch.int64, device=bench.model.device)
    for _ in range(bench.sampler.step_count):
        run_once(bench.model, ids)


def _weights(bench: Bench) -> int:
    return sum(one.numel() * one.element_size() for one in bench.model.network.parameters())
