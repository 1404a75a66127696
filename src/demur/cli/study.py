"""The command `demur study`: the main job.

In: a model and a folder of prompts. Out: a folder with recordings, tables, guards, figures and a report.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from demur.cli.arguments import (
    chat_options,
    harden_options,
    judge_of,
    layer_of,
    load_model,
    read_options,
    run_options,
    sampler_of,
)
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
    AsCsv,
    AsJson,
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
    Mode,
    ModelName,
    NoSystem,
    Out,
    Plugin,
    QuickCheck,
    Quiet,
    Resume,
    Revision,
    SamplerArguments,
    SamplerName,
    Seed,
    Steps,
    System,
    Template,
    TemplateArg,
)
from demur.cli.output import Output


def study(
    model: ModelName,
    out: Out,
    prompts: Annotated[Path, typer.Option(help="Folder of prompt files; see the docs for their names.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Use the first N prompts of each group only.")] = None,
    steps: Steps = 32,
    layer: Annotated[
        str | None, typer.Option(help="first, quarter, middle, last or a number; the only one that is read then.")
    ] = None,
    batch_size: BatchSize = 16,
    quantile: Annotated[float, typer.Option(help="Quantile of held-out harmless errors that the guard allows.")] = 0.99,
    sampler: SamplerName = None,
    sampler_arg: SamplerArguments = None,
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
    revision: Revision = None,
    system: System = None,
    no_system: NoSystem = False,
    template: Template = None,
    template_arg: TemplateArg = None,
    mode: Mode = None,
    family: FamilyName = None,
    column: Column = None,
    label: Label = None,
    encoding: Encoding = "utf-8",
    example: Annotated[list[str] | None, typer.Option(help="Id of a prompt to draw the signal of; repeatable.")] = None,
    show_text: Annotated[bool, typer.Option(help="Let the report contain prompts and model text.")] = False,
    harden: Harden = False,
    harden_rounds: HardenRounds = None,
    harden_longest: HardenLongest = None,
    plugin: Plugin = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    allow_unverified: AllowUnverified = False,
) -> None:
    """The main job: record, anchors, signal, rates, guard and a report."""
    told = Output(quiet, as_json, as_csv)
    told.say(f"reading {prompts}, then {model}")
    from demur.cli.results import hardening_facts, hardening_lines, study_numbers, study_tables
    from demur.files.writing import write_whole
    from demur.report import save_figures, signal_figure, write_report
    from demur.report.parts.look import render
    from demur.studies import run_study
    from demur.studies.study.prompt_sets import example_set, read_sets
    from demur.studies.study.run import LAYERS

    chat = chat_options(system, no_system, template, template_arg, mode, family)
    chat |= run_options(attention, compiled, device_map, cache_kind)
    read = read_options(column, label, encoding)
    hardening = harden_options(harden, harden_rounds, harden_longest)
    sets = read_sets(prompts, limit, read)  # a fault in a prompt file should not wait for the model to load
    shown = {one: example_set(one, sets, prompts) for one in example or []}
    with engine_of(engine, ray_address, ray_actors, ray_gpus, ray_threads, ray_timeout, ray_store) as generating:
        cache = judge_cache or out / "verdicts.jsonl"
        judged_by = judge_of(judge, judge_model, judge_key_env, cache, device, dtype, generating)
        loaded = load_model(model, device_beside(engine, device), dtype, revision, chat, told.say)
        with watched(quiet):
            found = run_study(
                loaded,
                prompts,
                out,
                sampler=sampler_of(loaded, sampler, sampler_arg, steps, seed),
                layers=LAYERS if layer is None else (layer_of(layer),),
                batch_size=batch_size,
                limit=limit,
                quantile=quantile,
                judge=judged_by,
                seed=seed,
                engine=generating,
                resume=resume,
                check=check,
                read=read,
                say=told.say,
                **hardening,
            )
    told.say("figures and report")
    save_figures(found, out / "figures")
    for name, (member, identity) in shown.items():
        place = list(zip(found.generations["set"], found.generations["id"], strict=True)).index((member, identity))
        write_whole(out / "figures" / f"signal-{place}.png", render(signal_figure(found, place), "png"))
        told.say(f"signal of {name}: {out / 'figures' / f'signal-{place}.png'}")
    report = write_report(found, out / "report.html", show_text=show_text)
    told.numbers({"out": str(out), "model": model, **hardening_facts(found)}, study_numbers(found), study_tables(found))
    for line in hardening_lines(found):
        told.say(line)
    told.say(f"report: {report}")
    told.say(f"every generation, step by step: demur view {shlex.quote(str(out))}")
