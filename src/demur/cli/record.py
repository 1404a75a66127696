"""The command `demur record`.

In: a model and a file of prompts. Out: the folder of a recording.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from demur.cli.arguments import chat_options, layer_of, load_model, prompts_of, responses_of, run_options, sampler_of
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
    Label,
    Mode,
    ModelName,
    NoSystem,
    Out,
    Plugin,
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
    TpPlan,
)
from demur.cli.output import Output
from demur.errors import InputError


def record(
    model: ModelName,
    prompts: Annotated[Path, typer.Argument(metavar="PROMPTS", help="A .jsonl, .csv or .parquet file.")],
    out: Out,
    sampler: SamplerName = None,
    sampler_arg: SamplerArguments = None,
    steps: Steps = 32,
    layers: Annotated[str, typer.Option(help="Comma-separated: first, quarter, middle, last or numbers.")] = "last",
    batch_size: BatchSize = 16,
    keep: Annotated[str, typer.Option(help="phi, signal (needs --anchors), or looks (for long answers).")] = "phi",
    anchors: Annotated[Path | None, typer.Option(help="Anchors for --keep signal.")] = None,
    window: Annotated[int, typer.Option(help="Latest tokens in the second mean of --keep looks.", min=1)] = 64,
    precision: Annotated[str, typer.Option(help="Of --keep looks: float32, or float16 for half the size.")] = "float32",
    responses: Annotated[
        Path | None, typer.Option(help="Texts of another model to force, a file of rows with id and response.")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Record the I-th of N parts of the run, for demur merge to join."),
    ] = None,
    engine: EngineName = "local",
    ray_address: RayAddress = None,
    ray_actors: RayActors = None,
    ray_gpus: RayGpus = None,
    ray_threads: RayThreads = None,
    ray_timeout: RayTimeout = None,
    ray_store: RayStore = None,
    seed: Seed = 0,
    resume: Resume = True,
    device: Device = "auto",
    dtype: Dtype = "auto",
    attention: Attention = None,
    compiled: Compile = False,
    cache_kind: CacheKind = None,
    device_map: DeviceMap = None,
    tp_plan: TpPlan = None,
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
    response_column: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=COLUMN", help="The column of id or response in --responses; repeatable."),
    ] = None,
    plugin: Plugin = None,
    quiet: Quiet = False,
    allow_unverified: AllowUnverified = False,
) -> None:
    """Generate for every prompt and record the states of every step."""
    if tp_plan is not None:
        from demur.models.parallel import is_first

        quiet = quiet or not is_first()
    told = Output(quiet)
    import demur

    if keep not in ("phi", "signal", "looks"):
        raise InputError(f"--keep is {keep!r}; give phi, signal or looks")
    share = _part_of(part)
    chat = chat_options(system, no_system, template, template_arg, mode, family)
    chat |= run_options(attention, compiled, device_map, cache_kind, tp_plan)
    rows = prompts_of(prompts, column, label, encoding)
    fitted = demur.Anchors.load(anchors) if anchors else None
    texts = responses_of(responses, rows, response_column, encoding) if responses else None
    loaded = load_model(model, device_beside(engine, device), dtype, revision, chat, told.say)
    with (
        engine_of(engine, ray_address, ray_actors, ray_gpus, ray_threads, ray_timeout, ray_store) as generating,
        watched(quiet),
    ):
        recording = demur.record(
            loaded,
            rows,
            sampler_of(loaded, sampler, sampler_arg, steps, seed),
            responses=texts,
            layers=[layer_of(layer) for layer in layers.split(",")],
            batch_size=batch_size,
            out=out,
            keep=cast(Any, keep),
            anchors=fitted,
            window=window,
            precision=cast(Any, precision),
            engine=generating,
            resume=resume,
            part=share,
        )
    verdicts = recording.table["refused"]
    refused = "no text to judge" if verdicts.isna().all() else f"{int(verdicts.sum())} refused"
    told.say(f"{out}: {len(recording)} prompts, {refused}")


def _part_of(text: str | None) -> tuple[int, int] | None:
    """The part that "3/16" names; None for the whole run."""
    if text is None:
        return None
    index, slash, of = (one.strip() for one in text.partition("/"))
    if not (slash and index.isdecimal() and of.isdecimal() and 1 <= int(index) <= int(of)):
        raise InputError(f"--part is {text!r}; expected I/N with 1 <= I <= N, such as 3/16")
    return int(index), int(of)
