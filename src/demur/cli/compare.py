"""The command `demur compare`.

In: folders of runs. Out: a folder with the table of the comparison and its page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.arguments import judge_of
from demur.cli.engines import EngineName, RayActors, RayAddress, RayGpus, RayStore, RayThreads, RayTimeout, engine_of
from demur.cli.options import (
    AllowUnverified,
    AsCsv,
    AsJson,
    Device,
    Dtype,
    JudgeCache,
    JudgeKeyEnv,
    JudgeModel,
    JudgeName,
    Out,
    Plugin,
    Quiet,
    Seed,
)
from demur.cli.output import Output


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Studies of the same prompts.")],
    out: Out,
    judge: JudgeName = None,
    judge_model: JudgeModel = None,
    judge_key_env: JudgeKeyEnv = None,
    judge_cache: JudgeCache = None,
    intersect: Annotated[bool, typer.Option("--intersect", help="Compare the prompts that all runs share.")] = False,
    engine: EngineName = "local",
    ray_address: RayAddress = None,
    ray_actors: RayActors = None,
    ray_gpus: RayGpus = None,
    ray_threads: RayThreads = None,
    ray_timeout: RayTimeout = None,
    ray_store: RayStore = None,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    plugin: Plugin = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    allow_unverified: AllowUnverified = False,
) -> None:
    """Two samplers or models on the same prompts: each run against the first."""
    told = Output(quiet, as_json, as_csv)
    told.say(f"reading {len(runs)} runs")
    from demur.cli.results import comparison_tables
    from demur.report import write_comparison
    from demur.studies import compare_runs

    with engine_of(engine, ray_address, ray_actors, ray_gpus, ray_threads, ray_timeout, ray_store) as generating:
        cache = judge_cache or out / "verdicts.jsonl"
        judged_by = judge_of(judge, judge_model, judge_key_env, cache, device, dtype, generating)
        found = compare_runs(runs, judge=judged_by, intersect=intersect, seed=seed)
    found.save(out)
    told.say(f"{len(found.runs)} runs of {found.settings['prompts']} prompts: {'; '.join(found.runs)}")
    page = write_comparison(found, out)
    told.numbers({"out": str(out), "runs": found.runs}, found.table, comparison_tables(found))
    told.say(f"comparison: {page}")
