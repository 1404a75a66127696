"""Peak memory and time of record, study tables, report and viewer against the number of prompts, and bytes a prompt.

The bundled autoregressive model answers its own toy prompts, repeated as often as it takes, in a few steps; every job
runs in a process of its own, whose largest resident memory is what is reported. Bytes a prompt are those of the shards
of a recording, divided by its prompts, of the same model; for other widths they are computed and checked against that.

    python benchmarks/scale.py [--prompts 1000 10000 100000] [--steps 4] [--batch-size 256]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import demur
from demur.looks import WINDOW, look_steps
from demur.prompts import write_prompts
from demur.studies import PROMPT_SETS, run_study
from machine import RESULTS, write_result

JOBS = ("record", "tables", "report", "viewer")
MODEL = "demur/tiny-ar"
FEWEST = 8


def write_repeated(folder: Path, count: int) -> None:
    """About `count` prompts in all, each toy set as often repeated as the others."""
    sets = {name: demur.read_prompts(f"demur/toy/{name}") for name in PROMPT_SETS}
    share = count / sum(map(len, sets.values()))
    for name, prompts in sets.items():
        wanted = max(FEWEST, round(share * len(prompts)))
        rows = [replace(prompts[n % len(prompts)], id=f"{prompts[n % len(prompts)].id}-{n}") for n in range(wanted)]
        write_prompts(rows, folder / f"{name}.jsonl")


def do(job: str, folder: Path, steps: int, batch_size: int) -> None:
    """One job; record makes what the others read."""
    from demur.report import save_figures, write_report, write_viewer
    from demur.studies import read_study

    run = folder / "run"
    if job == "record":
        model = demur.load(MODEL, device="cpu")
        for name in PROMPT_SETS:
            rows = demur.read_prompts(folder / "prompts" / f"{name}.jsonl")
            out = run / "recordings" / name
            demur.record(model, rows, steps=steps, layers=("quarter", "middle", "last"), batch_size=batch_size, out=out)
    elif job == "tables":
        run_study(MODEL, folder / "prompts", run, steps=steps, batch_size=batch_size, check=False)
    elif job == "report":
        study = read_study(run)
        save_figures(study, run / "figures")
        write_report(study, run / "report.html")
    else:
        write_viewer(run, run / "viewer.html")


def measured(job: str, folder: Path, steps: int, batch_size: int) -> dict[str, float]:
    """Megabytes and seconds of a job in a process of its own."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--job", job, "--folder", str(folder), "--steps", str(steps)]
    done = subprocess.run([*command, "--batch-size", str(batch_size)], check=True, capture_output=True, text=True)
    return {"peak_mb": json.loads(done.stdout.splitlines()[-1]), "seconds": time.perf_counter() - began}


def bytes_of(width: int, steps: int, keep: str) -> int:
    """Computed bytes a prompt of one layer of an autoregressive model: states or signal, tokens and when they came."""
    looks = len(look_steps(steps)) * width * (2 if steps > WINDOW else 1)
    states = {"phi": steps * width * 4, "signal": steps * 4, "looks": looks * 4, "looks float16": looks * 2}
    return states[keep] + steps * (4 + 2) + 8


def measured_bytes(steps: int) -> dict[str, dict[str, float]]:
    """Bytes a prompt of recordings of the bundled model, measured and computed."""
    model, prompts = demur.load(MODEL, device="cpu"), [f"tell me about tea {n}" for n in range(64)]
    found = {}
    for keep, options in {
        "phi": {},
        "looks": {"keep": "looks"},
        "looks float16": {"keep": "looks", "precision": "float16"},
    }.items():
        recording = demur.record(model, prompts, steps=steps, batch_size=64, **options)
        size = sum(path.stat().st_size for path in recording.path.glob("shards/*.safetensors"))
        found[keep] = {"measured": size / len(prompts), "computed": bytes_of(model.width, steps, keep)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--out", type=Path, default=RESULTS / "scale.json")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        do(given.job, given.folder, given.steps, given.batch_size)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    rows: list[dict[str, Any]] = []
    for count in given.prompts:
        with tempfile.TemporaryDirectory() as folder:
            write_repeated(Path(folder) / "prompts", count)
            for job in JOBS:
                cost = measured(job, Path(folder), given.steps, given.batch_size)
                rows.append({"prompts": count, "job": job, **cost})
                print(rows[-1], file=sys.stderr, flush=True)
            shards = len(list(Path(folder).glob("run/recordings/*/shards/*.parquet")))
            rows[-1] |= {"viewer_mb": (Path(folder) / "run" / "viewer.html").stat().st_size / 1e6, "shards": shards}
    widths = {"8B (width 4096)": 4096, "70B (width 8192)": 8192}
    keeps = ("phi", "signal", "looks", "looks float16")
    sizes = {
        f"{name}, {steps} steps": {keep: bytes_of(width, steps, keep) for keep in keeps}
        for name, width in widths.items()
        for steps in (32, 1024)
    }
    sizes |= {"checked on the bundled model, 32 steps": measured_bytes(32)}
    settings = {"steps": given.steps, "batch_size": given.batch_size}
    write_result(given.out, {**settings, "rows": rows, "bytes_a_prompt": sizes})


if __name__ == "__main__":
    main()
