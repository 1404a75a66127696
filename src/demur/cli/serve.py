"""The command `demur serve`.

In: a model, guards, limits. Out: a server that runs until it is told to stop. What it promises is in docs/serve.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.arguments import chat_options, load_model
from demur.cli.options import (
    AllowUnverified,
    Device,
    Dtype,
    FamilyName,
    ModelName,
    NoSystem,
    Plugin,
    Quiet,
    Revision,
    System,
    Template,
    TemplateArg,
)
from demur.cli.output import Output
from demur.errors import InputError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
GuardPlaces = Annotated[
    list[str],
    typer.Option("--guard", metavar="DIR|FILE|NAME", help="Guard files, a study's folder, owner/name; repeatable."),
]


def serve(
    model: ModelName,
    guard: GuardPlaces,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    hold: Annotated[str, typer.Option(help="What waits for its verdict: none, look or all.")] = "look",
    mode: Annotated[str, typer.Option(help="block stops what is flagged, score only reports it.")] = "block",
    enforce: Annotated[bool, typer.Option("--enforce", help="Clients cannot ask for mode score.")] = False,
    refusal: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What clients get in place of what was withheld.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="What clients call the model; by default MODEL.")] = None,
    engine: Annotated[str, typer.Option(help="auto, continuous (batching) or batches (own samplers).")] = "auto",
    slots: Annotated[int, typer.Option(help="Generations that run together.")] = 32,
    queue: Annotated[int, typer.Option(help="Generations that may wait; more are refused.")] = 256,
    cache_gb: Annotated[float, typer.Option(help="GiB for keys and values of requests that run.")] = 2.0,
    max_tokens: Annotated[
        int | None, typer.Option(help="Tokens of an answer at most; by default as far as the guards look.")
    ] = None,
    max_prompt_tokens: Annotated[int, typer.Option(help="Tokens of a prompt at most.")] = 2048,
    max_body: Annotated[int, typer.Option(help="Bytes of a request at most.")] = 1 << 20,
    timeout: Annotated[float, typer.Option(help="Seconds that a request may take.")] = 600.0,
    drain: Annotated[float, typer.Option(help="Seconds that running requests have when it stops.")] = 30.0,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="Variable with the key; by default DEMUR_API_KEY, if set.")
    ] = None,
    api_key_file: Annotated[Path | None, typer.Option(help="File of keys, a line each.")] = None,
    log: Annotated[Path | None, typer.Option(help="File for a line a verdict, without text.")] = None,
    log_text: Annotated[bool, typer.Option("--log-text", help="Write prompts and answers into the log.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    family: FamilyName = None,
    system: System = None,
    no_system: NoSystem = False,
    template: Template = None,
    template_arg: TemplateArg = None,
    plugin: Plugin = None,
    quiet: Quiet = False,
    allow_unverified: AllowUnverified = False,
) -> None:
    """Serve a model under a guard, with OpenAI's chat API."""
    told = Output(quiet)
    try:
        from demur.serve import Settings, load_guards, make_app
        from demur.serve.keys import keys_of
        from demur.serve.run import run
    except ModuleNotFoundError as error:
        raise InputError(f"demur serve needs one more package, {error.name}: pip install 'demur[serve]'") from error
    settings = Settings(
        hold=hold,  # type: ignore[arg-type]
        mode=mode,  # type: ignore[arg-type]
        enforce=enforce,
        refusal=refusal,
        engine=engine,  # type: ignore[arg-type]
        slots=slots,
        queue=queue,
        cache=int(cache_gb * (1 << 30)),
        max_tokens=max_tokens,
        max_prompt_tokens=max_prompt_tokens,
        max_body=max_body,
        timeout=timeout,
        drain=drain,
    )
    keys = keys_of(api_key_env, api_key_file)
    watched = load_guards(guard)
    chat = chat_options(system, no_system, template, template_arg, family=family)
    loaded = load_model(model, device, dtype, revision, chat, told.say)
    app = make_app(loaded, watched, settings, keys=keys, name=name, log=log, log_text=log_text)
    if not keys and host not in LOOPBACK:
        typer.echo(f"demur: no API key is set: whoever reaches {host}:{port} can use the model", err=True)
    guards = ", ".join(one.name for one in watched)
    told.say(f"serving {name or model} under {guards} at http://{host}:{port}/v1 (hold {hold}, mode {mode})")
    run(app, settings, host=host, port=port)
