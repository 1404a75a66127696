"""The command `demur check`.

In: a model. Out: a table on stdout, or JSON; exit code 0 where nothing failed, 1 where something did, 2 for a model
that cannot be loaded. What is checked and how is in `demur.checks`.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from demur.cli.arguments import chat_options, run_options
from demur.cli.options import (
    Attention,
    CacheKind,
    Compile,
    Device,
    DeviceMap,
    Dtype,
    FamilyName,
    Mode,
    ModelName,
    NoSystem,
    Revision,
    System,
    Template,
    TemplateArg,
)

if TYPE_CHECKING:
    from demur.checks import Row


def check(
    model: ModelName,
    quick: Annotated[bool, typer.Option("--quick", help="Only what a study runs first, in seconds.")] = False,
    minutes: Annotated[float, typer.Option(min=0.01, help="About how long it may take, loading excluded.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run the checkpoint's own code, as a judge where it runs.")
    ] = False,
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
) -> None:
    """Prove that demur measures rightly on this checkpoint, device and dtype, in about a minute."""
    from demur.checks import check, show

    found = check(
        model,
        quick=quick,
        minutes=minutes,
        say=_say if sys.stderr.isatty() else lambda row: None,
        device=device,
        dtype=dtype,
        revision=revision,
        trust_remote_code=trust_remote_code,
        **chat_options(system, no_system, template, template_arg, mode, family),
        **run_options(attention, compiled, device_map, cache_kind),
    )
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2, ensure_ascii=False))
    else:
        show(found, sys.stdout)
    if not found.ok:
        raise typer.Exit(1)


def _say(row: Row) -> None:
    typer.echo(f"{row.name}: {row.outcome}", err=True)
