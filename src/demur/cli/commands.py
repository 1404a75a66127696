"""The command line: one function a command, each a thin layer over the library.

In: arguments. Out: files, one line of news each on stdout; exit code 0 when done, 2 for wrong usage or bad
input (one line on stderr), 1 for anything else. Heavy imports stand inside the commands.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.cli.check import check as check_model
from demur.cli.guard import AllowUnverified, guard_app
from demur.cli.harden import harden as harden_model
from demur.cli.options import (
    Column,
    Encoding,
    Label,
    NoSystem,
    System,
    Template,
    TemplateArg,
    chat_options,
    columns_of,
    read_options,
)
from demur.errors import DemurError, InputError
from demur.files.seals import UnverifiedWarning

if TYPE_CHECKING:
    from demur.judges import Judge
    from demur.models import Model
    from demur.prompts import Prompt
    from demur.samplers import Sampler


class Commands(typer.core.TyperGroup):
    """Commands of one word, and of two where the first is also a command by itself: "study paper"."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        joined = " ".join(args[:2])
        return super().resolve_command(ctx, [joined, *args[2:]] if joined in self.commands else args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.stderr.write("demur: stopped; the same command goes on\n")
            sys.exit(130)


app = typer.Typer(
    cls=Commands,
    name="demur",
    help="Record, step by step, how a language model decides to refuse; read it as a signal; guard with it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to import than `demur --help` may take
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(guard_app, name="guard")
app.command("check")(check_model)
app.command("harden")(harden_model)

ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Hub id, checkpoint folder or .gguf file.")]
Steps = Annotated[int, typer.Option(help="T, the number of steps of a generation.")]
BatchSize = Annotated[int, typer.Option(help="Prompts generated together; never changes a result.")]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.")]
SamplerName = Annotated[str | None, typer.Option("--sampler", help="Sampler class; by default the model's own.")]
SamplerArguments = Annotated[
    list[str] | None,
    typer.Option("--sampler-arg", metavar="NAME=VALUE", help="An argument of the sampler; repeatable."),
]
Resume = Annotated[bool, typer.Option(help="Go on where an earlier run stopped; --no-resume starts anew.")]
QuickCheck = Annotated[
    bool, typer.Option("--check/--no-check", help="Stop where the quick form of `demur check` fails.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Revision = Annotated[str | None, typer.Option(help="Revision of a Hub model.")]
Out = Annotated[Path, typer.Option(help="Where to write.")]
JudgeName = Annotated[
    str | None,
    typer.Option("--judge", help="complies, complies:N (first N words), chat:MODEL or http://ADDRESS."),
]
JudgeModel = Annotated[str | None, typer.Option(help="Name of the model to ask at the judge's address.")]
JudgeKeyEnv = Annotated[str | None, typer.Option(help="Environment variable that holds the address's key.")]
JudgeCache = Annotated[Path | None, typer.Option(help="File that keeps verdicts; by default OUT/verdicts.jsonl.")]


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    seed: Seed = 0,
    resume: Resume = True,
) -> None:
    """The whole story in three minutes: two bundled models, offline, and one page that explains it."""
    from demur.report import write_comparison, write_report, write_story, write_viewer
    from demur.studies.demo.run import run_demo

    found = run_demo(out, seed=seed, resume=resume, say=typer.echo)
    typer.echo("pages")
    for name, one in found.studies.items():
        write_report(one, out / name / "report.html", show_text=True)
        typer.echo(
            f"  every generation, step by step: {write_viewer(out / name, out / name / 'viewer.html', show_text=True)}"
        )
    write_comparison(found.comparison, out / "comparison")
    report = write_story(found, out / "report.html")
    typer.echo(f"report: {report}")
    typer.echo("next, a real model, from the Hub, a folder or a .gguf file, on these prompts and then on your own:")
    typer.echo("  demur study Qwen/Qwen2.5-0.5B-Instruct --out runs/qwen --prompts demur/toy")
    typer.echo("  demur study MODEL --out runs/mine --prompts DIR")
    _open(report)


@app.command()
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
    seed: Seed = 0,
    resume: Resume = True,
    check: QuickCheck = True,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    system: System = None,
    no_system: NoSystem = False,
    template: Template = None,
    template_arg: TemplateArg = None,
    column: Column = None,
    label: Label = None,
    encoding: Encoding = "utf-8",
    example: Annotated[list[str] | None, typer.Option(help="Id of a prompt to draw the signal of; repeatable.")] = None,
    show_text: Annotated[bool, typer.Option(help="Let the report contain prompts and model text.")] = False,
    allow_unverified: AllowUnverified = False,
) -> None:
    """The main job: record, anchors, signal, rates, guard and a report."""
    from demur.files.writing import write_whole
    from demur.report import save_figures, signal_figure, write_report
    from demur.report.parts.look import render
    from demur.studies import run_study
    from demur.studies.study.run import LAYERS, example_set, read_sets

    chat = chat_options(system, no_system, template, template_arg)
    read = read_options(column, label, encoding)
    sets = read_sets(prompts, limit, read)  # a fault in a prompt file should not wait for the model to load
    shown = {one: example_set(one, sets, prompts) for one in example or []}
    judged_by = _judge(judge, judge_model, judge_key_env, judge_cache or out / "verdicts.jsonl", device, dtype)
    loaded = _load(model, device, dtype, revision, chat)
    found = run_study(
        loaded,
        prompts,
        out,
        sampler=_sampler(loaded, sampler, sampler_arg, steps, seed),
        layers=LAYERS if layer is None else (_layer(layer),),
        batch_size=batch_size,
        limit=limit,
        quantile=quantile,
        judge=judged_by,
        seed=seed,
        resume=resume,
        check=check,
        read=read,
        say=typer.echo,
    )
    save_figures(found, out / "figures")
    for name, (member, identity) in shown.items():
        place = list(zip(found.generations["set"], found.generations["id"], strict=True)).index((member, identity))
        write_whole(out / "figures" / f"signal-{place}.png", render(signal_figure(found, place), "png"))
        typer.echo(f"signal of {name}: {out / 'figures' / f'signal-{place}.png'}")
    typer.echo(f"report: {write_report(found, out / 'report.html', show_text=show_text)}")
    typer.echo(f"every generation, step by step: demur view {shlex.quote(str(out))}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN", help="Studies of the same prompts.")],
    out: Out,
    judge: JudgeName = None,
    judge_model: JudgeModel = None,
    judge_key_env: JudgeKeyEnv = None,
    judge_cache: JudgeCache = None,
    intersect: Annotated[bool, typer.Option("--intersect", help="Compare the prompts that all runs share.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    allow_unverified: AllowUnverified = False,
) -> None:
    """Two samplers or models on the same prompts: each run against the first."""
    from demur.report import write_comparison
    from demur.studies import compare_runs

    judged_by = _judge(judge, judge_model, judge_key_env, judge_cache or out / "verdicts.jsonl", device, dtype)
    found = compare_runs(runs, judge=judged_by, intersect=intersect, seed=seed)
    found.save(out)
    typer.echo(f"{len(found.runs)} runs of {found.settings['prompts']} prompts: {'; '.join(found.runs)}")
    typer.echo(f"comparison: {write_comparison(found, out)}")


@app.command("study paper")
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
    seed: Seed = 0,
    resume: Resume = True,
    check: QuickCheck = True,
    device: Device = "auto",
    dtype: Dtype = "auto",
    system: System = None,
    no_system: NoSystem = False,
    template: Template = None,
    template_arg: TemplateArg = None,
    column: Column = None,
    label: Label = None,
    encoding: Encoding = "utf-8",
    allow_unverified: AllowUnverified = False,
) -> None:
    """The paper's protocol on any models: its tables and figures, the paper's numbers beside yours."""
    from demur.report import save_figures, write_paper, write_report
    from demur.studies.paper import run_paper

    chat = chat_options(system, no_system, template, template_arg)
    judged_by = _judge(judge, judge_model, judge_key_env, judge_cache or out / "verdicts.jsonl", device, dtype)
    found = run_paper(
        [*(models or []), *(more or [])],
        lambda name: _load(name, device, dtype, None, chat),
        prompts,
        out,
        steps=steps,
        batch_size=batch_size,
        limit=limit,
        quantile=quantile,
        judge=judged_by,
        guard_models=guard_model or [],
        seed=seed,
        resume=resume,
        check=check,
        read=read_options(column, label, encoding),
        say=typer.echo,
    )
    for subject in found.subjects:
        for one in (subject.study, *([subject.ordered] if subject.ordered else [])):
            save_figures(one, one.path / "figures")
            write_report(one, one.path / "report.html")
    typer.echo(f"tables: {out / 'tables'}")
    typer.echo(f"report: {write_paper(found, out / 'report.html')}")


@app.command()
def view(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A study, or a recording with its anchors.safetensors.")],
    out: Annotated[Path | None, typer.Option(help="The file to write; by default RUN/viewer.html.")] = None,
    show_text: Annotated[bool, typer.Option(help="Let the file contain prompts and model text.")] = False,
    open_it: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
    allow_unverified: AllowUnverified = False,
) -> None:
    """Play any generation of a run step by step: one HTML file that needs no network."""
    from demur.report import write_viewer

    path = write_viewer(run, out or run / "viewer.html", show_text=show_text)
    typer.echo(f"viewer: {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if open_it:
        _open(path)


@app.command()
def record(
    model: ModelName,
    prompts: Annotated[Path, typer.Argument(metavar="PROMPTS", help="A .jsonl, .csv or .parquet file.")],
    out: Out,
    sampler: SamplerName = None,
    sampler_arg: SamplerArguments = None,
    steps: Steps = 32,
    layers: Annotated[str, typer.Option(help="Comma-separated: first, quarter, middle, last or numbers.")] = "last",
    batch_size: BatchSize = 16,
    keep: Annotated[str, typer.Option(help="phi, or signal (needs --anchors).")] = "phi",
    anchors: Annotated[Path | None, typer.Option(help="Anchors for --keep signal.")] = None,
    responses: Annotated[
        Path | None, typer.Option(help="Texts of another model to force, a file of rows with id and response.")
    ] = None,
    seed: Seed = 0,
    resume: Resume = True,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    system: System = None,
    no_system: NoSystem = False,
    template: Template = None,
    template_arg: TemplateArg = None,
    column: Column = None,
    label: Label = None,
    encoding: Encoding = "utf-8",
    response_column: Annotated[
        list[str] | None,
        typer.Option(metavar="FIELD=COLUMN", help="The column of id or response in --responses; repeatable."),
    ] = None,
    allow_unverified: AllowUnverified = False,
) -> None:
    """Generate for every prompt and record the states of every step."""
    import demur

    if keep not in ("phi", "signal"):
        raise InputError(f"--keep is {keep!r}; give phi or signal")
    chat = chat_options(system, no_system, template, template_arg)
    rows = _read(prompts, column, label, encoding)
    fitted = demur.Anchors.load(anchors) if anchors else None
    texts = _responses(responses, rows, response_column, encoding) if responses else None
    loaded = _load(model, device, dtype, revision, chat)
    recording = demur.record(
        loaded,
        rows,
        _sampler(loaded, sampler, sampler_arg, steps, seed),
        responses=texts,
        layers=[_layer(layer) for layer in layers.split(",")],
        batch_size=batch_size,
        out=out,
        keep="signal" if keep == "signal" else "phi",
        anchors=fitted,
        resume=resume,
    )
    verdicts = recording.table["refused"]
    refused = "no text to judge" if verdicts.isna().all() else f"{int(verdicts.sum())} refused"
    typer.echo(f"{out}: {len(recording)} prompts, {refused}")


@app.command()
def anchors(
    harmless: Annotated[Path, typer.Argument(metavar="HARMLESS_DIR", help="Recording of harmless prompts.")],
    harmful: Annotated[Path, typer.Argument(metavar="HARMFUL_DIR", help="Recording of harmful prompts.")],
    out: Out = Path("anchors.safetensors"),
    allow_unverified: AllowUnverified = False,
) -> None:
    """Fit anchors: the mean states of answered harmless and of refused harmful prompts."""
    import demur

    fitted = demur.Anchors.fit(demur.Recording(harmless), demur.Recording(harmful))
    fitted.save(out)
    typer.echo(f"{out}: {fitted}")


@app.command()
def signal(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING_DIR", help="A recording.")],
    anchors: Annotated[Path, typer.Option(help="Anchors of the same model, sampler and layer.")],
    out: Out = Path("signal.parquet"),
    allow_unverified: AllowUnverified = False,
) -> None:
    """The signal of every generation of a recording."""
    import demur
    from demur.recording import write_signal

    sigma = write_signal(demur.Recording(recording), demur.Anchors.load(anchors), out)
    typer.echo(f"{out}: {sigma.shape[0]} signals of {sigma.shape[1]} steps")


def _list_attacks(asked: bool) -> None:
    if asked:
        from demur.attacks import ATTACKS

        for name, one in ATTACKS.items():
            typer.echo(f"{name:30}{(one.__doc__ or '').splitlines()[0]}")
        raise typer.Exit


@app.command()
def attack(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of an attack; --list shows them.")],
    prompts: Annotated[Path, typer.Argument(metavar="PROMPTS", help="A .jsonl, .csv or .parquet file.")],
    out: Annotated[Path, typer.Option(help="The .jsonl file to write.")],
    list_: Annotated[
        bool, typer.Option("--list", callback=_list_attacks, is_eager=True, help="Show the attacks and stop.")
    ] = False,
    column: Column = None,
    label: Label = None,
    encoding: Encoding = "utf-8",
) -> None:
    """Write a prompt file anew, every prompt turned into an attack."""
    from demur.attacks import attack_prompts
    from demur.prompts import write_prompts

    made = attack_prompts(name, _read(prompts, column, label, encoding))
    write_prompts(made, out)
    typer.echo(f"{out}: {len(made)} prompts, attack {name}")


@app.command()
def artifact(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A JailbreakBench .json, a HarmBench .csv or hub:OWNER/NAME[:PART].")
    ],
    out: Annotated[Path, typer.Option(help="The .jsonl file to write.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Read the first N prompts only.")] = None,
) -> None:
    """Write published attack prompts or behaviours as a prompt file."""
    from demur.attacks import read_artifact
    from demur.prompts import write_prompts

    found = read_artifact(source, limit=limit)
    write_prompts(found, out)
    typer.echo(f"{out}: {len(found)} prompts")


def _open(page: Path) -> None:
    """Open a page in the browser where there is a screen; elsewhere a browser would take over the terminal."""
    has_screen = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if has_screen and sys.stdout.isatty():
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def _load(
    name: str, device: str, dtype: str, revision: str | None, chat: Mapping[str, Any] = MappingProxyType({})
) -> Model:
    from demur.models import load

    return load(name, device=device, dtype=dtype, revision=revision, **chat)


def _read(path: Path, column: list[str] | None, label: list[str] | None, encoding: str) -> list[Prompt]:
    from demur.prompts import read_prompts

    read = read_options(column, label, encoding)
    return read_prompts(path, columns=read.columns, labels=read.labels, encoding=read.encoding)


def _responses(path: Path, rows: list[Prompt], column: list[str] | None, encoding: str) -> list[str]:
    from demur.recording import read_responses

    return read_responses(path, rows, columns=columns_of("--response-column", column), encoding=encoding)


def _judge(
    name: str | None, model: str | None, key_env: str | None, cache: Path, device: str, dtype: str
) -> Judge | None:
    if name is None:
        return None
    from demur.studies import judge_of

    return judge_of(
        name, lambda one: _load(one, device, dtype, None), address_model=model, api_key_env=key_env, cache=cache
    )


def _sampler(model: Model, name: str | None, arguments: list[str] | None, steps: int, seed: int) -> Sampler:
    """The sampler asked for; values of its arguments are read as JSON, and as text where they are none."""
    from demur import samplers

    given = {"seed": seed, **dict(_argument(text) for text in arguments or [])}
    found = {name: getattr(samplers, name) for name in samplers.__all__}
    known = [name for name, one in found.items() if isinstance(one, type) and samplers.Sampler in one.__mro__[1:]]
    if name is not None and name not in known:
        raise InputError(f"sampler {name!r} is unknown; give one of {', '.join(known)}")
    try:
        if name is None:
            made: Sampler = model.default_sampler(steps=steps, **given)
        else:
            made = found[name](steps=steps, **given)
    except TypeError as error:
        raise InputError(f"the sampler does not take these arguments: {error}") from error
    return made


def _argument(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--sampler-arg {text!r} is not of the form NAME=VALUE")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value


def _layer(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text.strip()


def main() -> None:
    """Run the command line and exit."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # read by tqdm when transformers imports it
    warnings.showwarning = _show_warning
    try:
        app()
    except DemurError as error:
        _stop(error, 2)
    except OSError as error:
        _stop(DemurError(f"{error.filename or 'the operating system'}: {error.strerror or error}"), 2)
    except MemoryError:
        _stop(DemurError("out of memory; give a smaller --batch-size, or fewer or shorter prompts"), 1)
    except RecursionError:
        _stop(DemurError("what was read is nested too deeply; give another file"), 1)


def _stop(error: DemurError, code: int) -> None:
    sys.stderr.write(f"demur: {' '.join(str(error).split())}\n")
    sys.exit(code)


_print_warning = warnings.showwarning


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **options: Any) -> None:
    """Print what demur itself warns of as one line, and leave the rest as it is."""
    if issubclass(category, UnverifiedWarning):
        sys.stderr.write(f"demur: {DemurError(str(message))}\n")
    else:
        _print_warning(message, category, *place, **options)


if __name__ == "__main__":
    main()
