"""The command `demur study paper`: the paper's protocol.

In: models and a folder of prompts. Out: a folder a model with its studies, the protocol's tables, and a report.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.arguments import chat_options, harden_options, judge_of, load_model, read_options, run_options
from demur.cli.bar import watched
from demur.cli.engines import (
    EngineName,
    RayActors,
    RayAddress,
    RayGpus,
    RayStore,
    RayThreads,
    RayTimeout,
    device_beside,
    engine_of,
)
from demur.cli.options import (
    AllowUnverified,
    Attention,
    BatchSize,
    CacheKind,
    Column,
    Compile,
    Device,
    DeviceMap,
    Dtype,
    Encoding,
    FamilyName,
    Harden,
    HardenLongest,
    HardenRounds,
    JudgeCache,
    JudgeKeyEnv,
    JudgeModel,
    JudgeName,
    Label,
    NoSystem,
    Out,
    Plugin,
    QuickCheck,
    Quiet,
    Resume,
    Seed,
    Steps,
    System,
    Template,
    TemplateArg,
)
from demur.cli.output import Output


def study_paper(
    out: Out,
    prompts: Annotated[Path, typer.Option(help="Folder of prompt files, or demur/toy; as for `demur study`.")],
    models: Annotated[list[str] | None, typer.Option(help="Models, one after another: --models A B C.")] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="More models.")] = None,
    guard_model: Annotated[
        list[str] | None, typer.Option(help="Chat guard to compare, such as Llama Guard; repeatable.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first N prompts of each group only.")] = None,
    steps: Steps = 32,
    batch_size: BatchSize = 16,
    quantile: Annotated[float, typer.Option(help="Quantile of held-out harmless errors that the guards allow.")] = 0.99,
    judge: JudgeName = None,
    judge_model: JudgeModel = None,
    judge_key_env: JudgeKeyEnv = None,
    judge_cache: JudgeCache = None,
    engine: EngineName = "local",
    ray_address: RayAddress = None,
    ray_actors: RayActors = None,
    ray_gpus: RayGpus = None,
    ray_threads: RayThreads = None,
    ray_timeout: RayTimeout = None,
    ray_store: RayStore = None,
    seed: Seed = 0,
    resume: Resume = True,
    check: QuickCheck = True,
    device: Device = "auto",
    dtype: Dtype = "auto",
    attention: Attention = None,
    compiled: Compile = False,
    cache_kind: CacheKind = None,
    device_map: DeviceMap = None,
    system: System = None,
    no_system: NoSystem = False,
    template: Template = None,
    template_arg: TemplateArg = None,
    family: FamilyName = None,
    column: Column = None,
    label: Label = None,
    encoding: Encoding = "utf-8",
    harden: Harden = False,
    harden_rounds: HardenRounds = None,
    harden_longest: HardenLongest = None,
    plugin: Plugin = None,
    quiet: Quiet = False,
    allow_unverified: AllowUnverified = False,
) -> None:
    """The paper's protocol on any models: its tables and figures, the paper's numbers beside yours."""
    told = Output(quiet)
    from demur.report import save_figures, write_paper, write_report
    from demur.studies.paper import run_paper

    hardening = harden_options(harden, harden_rounds, harden_longest)
    chat = chat_options(system, no_system, template, template_arg, family=family)
    chat |= run_options(attention, compiled, device_map, cache_kind)
    with engine_of(engine, ray_address, ray_actors, ray_gpus, ray_threads, ray_timeout, ray_store) as generating:
        cache = judge_cache or out / "verdicts.jsonl"
        judged_by = judge_of(judge, judge_model, judge_key_env, cache, device, dtype, generating)
        with watched(quiet):
            found = run_paper(
                [*(models or []), *(more or [])],
                lambda name: load_model(name, device_beside(engine, device), dtype, None, chat, told.say),
                prompts,
                out,
                steps=steps,
                batch_size=batch_size,
                limit=limit,
                quantile=quantile,
                judge=judged_by,
                guard_models=guard_model or [],
                seed=seed,
                engine=generating,
                resume=resume,
                check=check,
                read=read_options(column, label, encoding),
                say=told.say,
                **hardening,
            )
    for subject in found.subjects:
        for one in (subject.study, *([subject.ordered] if subject.ordered else [])):
            save_figures(one, one.path / "figures")
            write_report(one, one.path / "report.html")
    told.say(f"tables: {out / 'tables'}")
    told.say(f"report: {write_paper(found, out / 'report.html')}")
