"""Peak memory and time of record, study tables, report and viewer against the number of prompts, and bytes a prompt.

The bundled autoregressive model answers its own toy prompts, repeated as often as it takes, in a few steps; every job
runs in a process of its own, whose largest resident memory and processor seconds are what is reported. Beyond
`--generate` prompts each distinct prompt is generated once and its answer, which is greedy, stands for all of its
repetitions; encoding, planning, writing and joining are those of `demur.record` all the same. Bytes a prompt are those
of the shards of a recording, divided by its prompts; for other widths they are computed and checked against that.

    python benchmarks/scale.py [--prompts 1000 10000 100000] [--steps 4] [--batch-size 256] [--generate 0]
                               [--work FOLDER]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

import demur
from demur.files.listed import FILES, hashes_of
from demur.files.staging import switched
from demur.looks import WINDOW, look_steps
from demur.prompts import write_prompts
from demur.recording.encoded import Encoded, Plan
from demur.recording.generate import Batch, batches
from demur.studies import PROMPT_SETS
from demur.studies.study.analysis import analyse
from demur.studies.study.controls import PREFIX, fitting
from demur.studies.study.made import anchored_by
from demur.studies.study.prompt_sets import read_sets
from demur.studies.study.results import SETTINGS
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


class Repeating:
    """An engine that generates each distinct prompt once; its answer stands for all repetitions."""

    versions: ClassVar[dict[str, str]] = {}

    def require(self, model: demur.Model, sampler: Any) -> None:
        pass

    def batches(
        self,
        model: demur.Model,
        encoded: Sequence[Encoded],
        sampler: Any,
        layers: Sequence[int],
        batch_size: int,
        ids: Sequence[str],
        looks: Any = None,
    ) -> Iterator[Batch]:
        keys = {one.row: one.ids.tobytes() for one in encoded}
        distinct = {keys[one.row]: one for one in reversed(encoded)}
        made = list(batches(model, list(distinct.values()), sampler, layers, batch_size, ids, looks))
        places = {keys[row]: (batch, at) for batch in made for at, row in enumerate(batch.rows.tolist())}
        for chosen in Plan(encoded, batch_size):
            yield _joined([one.row for one in chosen], [places[keys[one.row]] for one in chosen])


def _joined(rows: list[int], found: list[tuple[Batch, int]]) -> Batch:
    def stacked(name: str) -> Any:
        values = [getattr(batch, name) for batch, _ in found]
        return None if values[0] is None else np.stack([one[at] for one, (_, at) in zip(values, found, strict=True)])

    return Batch(
        rows=np.array(rows),
        **{name: stacked(name) for name in ("phi", "window", "tokens", "committed_at", "predicted")},
        texts=[(batch.texts or [])[at] for batch, at in found],
        prompt_tokens=[batch.prompt_tokens[at] for batch, at in found],
        seconds=found[0][0].seconds,
    )


def do(job: str, folder: Path, steps: int, batch_size: int, generate: bool) -> None:
    """One job; record makes what the others read."""
    from demur.report import save_figures, write_report, write_viewer
    from demur.studies import read_study

    run = folder / "run"
    if job == "record":
        model = demur.load(MODEL, device="cpu")
        for name, rows in read_sets(folder / "prompts", None).items():
            out = run / "recordings" / name
            settings = {"steps": steps, "layers": ("quarter", "middle", "last"), "batch_size": batch_size}
            fit = fitting(model, model.default_sampler(steps=steps), rows) if name.startswith(PREFIX) else rows
            demur.record(model, fit, **settings, out=out, engine=None if generate else Repeating())
    elif job == "tables":
        write_tables(run)
    elif job == "report":
        study = read_study(run)
        save_figures(study, run / "figures")
        write_report(study, run / "report.html")
    else:
        write_viewer(run, run / "viewer.html")


def write_tables(run: Path) -> None:
    """What `run_study` makes of finished recordings; its prompts are counted where they are recorded."""
    order = {name: place for place, name in enumerate(PROMPT_SETS)}
    names = sorted((path.name for path in (run / "recordings").iterdir()), key=lambda name: (order.get(name, 9), name))
    recordings = {name: demur.Recording(run / "recordings" / name) for name in names}
    anchored = anchored_by(recordings["anchors_harmless"], recordings["anchors_harmful"])
    with switched(run, SETTINGS) as new:
        anchored.anchors.save(new / "anchors.safetensors")
        study = analyse(recordings, anchored, out=new)
        replace(study, settings={**study.settings, FILES: hashes_of(new)}, path=run).save(new)


def measured(job: str, folder: Path, steps: int, batch_size: int, generate: int) -> dict[str, float]:
    """Megabytes and seconds of a job in a process of its own."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--job", job, "--folder", str(folder), "--steps", str(steps)]
    command += ["--batch-size", str(batch_size), "--generate", str(generate)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": time.perf_counter() - began}


def rows_of(count: int, folder: Path, given: argparse.Namespace) -> list[dict[str, Any]]:
    """What every job of so many prompts costs; one whose numbers are in the folder already is not run again."""
    rows: list[dict[str, Any]] = []
    if not (folder / "prompts").is_dir():
        (folder / "prompts").mkdir(parents=True)
        write_repeated(folder / "prompts", count)
    for job in JOBS:
        kept = folder / f"{job}.json"
        if not kept.is_file():
            cost = measured(job, folder, given.steps, given.batch_size, int(count <= given.generate))
            kept.write_text(json.dumps(cost))
        rows.append({"prompts": count, "job": job, **json.loads(kept.read_text())})
        print(rows[-1], file=sys.stderr, flush=True)
    shards = len(list(folder.glob("run/recordings/*/shards/*.parquet")))
    rows[-1] |= {"viewer_mb": (folder / "run" / "viewer.html").stat().st_size / 1e6, "shards": shards}
    return rows


def bytes_of(width: int, steps: int, keep: str) -> int:
    """Computed bytes a prompt of one layer of an autoregressive model: states or signal, tokens and when they came."""
    looks = len(look_steps(steps)) * width * (2 if steps > WINDOW else 1)
    states = {"phi": steps * width * 4, "signal": steps * 4, "looks": looks * 4, "looks float16": looks * 2}
    return states[keep] + steps * (4 + 2) + 8


def measured_bytes(steps: int) -> dict[str, Any]:
    """Bytes a prompt of recordings of the bundled model, measured and computed, and what half precision changes."""
    model, prompts = demur.load(MODEL, device="cpu"), [f"tell me about tea {n}" for n in range(64)]
    sides = [demur.read_prompts(f"demur/toy/anchors_{side}") for side in ("harmless", "harmful")]
    anchors = demur.stream_anchors(model, *sides, steps=steps, batch_size=60)
    kinds: dict[str, dict[str, Any]] = {
        "phi": {},
        "signal": {"keep": "signal", "anchors": anchors},
        "looks": {"keep": "looks"},
        "looks float16": {"keep": "looks", "precision": "float16"},
    }
    found: dict[str, Any] = {}
    states = {}
    for keep, options in kinds.items():
        recording = demur.record(model, prompts, steps=steps, batch_size=64, **options)
        size = sum(path.stat().st_size for path in recording.path.glob("shards/*.safetensors"))
        found[keep] = {"measured": size / len(prompts), "computed": bytes_of(model.width, steps, keep)}
        if recording.keep == "looks":
            states[keep] = recording.look_states
    single, half = states["looks"], states["looks float16"]
    norms = np.linalg.norm(single, axis=-1)
    cosines = (single * half).sum(-1) / norms / np.linalg.norm(half, axis=-1)
    found["error of half precision"] = {
        "largest of a number": float(np.abs(single - half).max()),
        "largest of a state, relative": float((np.linalg.norm(single - half, axis=-1) / norms).max()),
        "largest 1 - cosine": float((1 - cosines).max()),
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--generate", type=int, default=0, help="up to how many prompts are all generated")
    parser.add_argument("--out", type=Path, default=RESULTS / "scale.json")
    parser.add_argument("--work", type=Path, help="a folder that stays, so that a run that was ended goes on there")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        do(given.job, given.folder, given.steps, given.batch_size, bool(given.generate))
        used = resource.getrusage(resource.RUSAGE_SELF)
        print(json.dumps({"peak_mb": used.ru_maxrss / 1024, "cpu_seconds": used.ru_utime + used.ru_stime}))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for count in given.prompts:
            rows += rows_of(count, (given.work or Path(temporary)) / str(count), given)
    widths = {"8B (width 4096)": 4096, "70B (width 8192)": 8192}
    keeps = ("phi", "signal", "looks", "looks float16")
    sizes = {
        f"{name}, {steps} steps": {keep: bytes_of(width, steps, keep) for keep in keeps}
        for name, width in widths.items()
        for steps in (32, 1024)
    }
    sizes |= {"checked on the bundled model, 32 steps": measured_bytes(32)}
    settings = {"steps": given.steps, "batch_size": given.batch_size, "generated_up_to": given.generate}
    write_result(given.out, {**settings, "rows": rows, "bytes_a_prompt": sizes})


if __name__ == "__main__":
    main()
