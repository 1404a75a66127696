"""The commands `demur attack` and `demur artifact`: files of attack prompts.

In: a prompt file, or a published one. Out: a prompt file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.arguments import prompts_of
from demur.cli.options import Column, Encoding, Label, Plugin


def _list_attacks(asked: bool) -> None:
    if asked:
        from demur.attacks import ATTACKS

        ATTACKS.names()  # of plugins too
        for name, one in ATTACKS.items():
            typer.echo(f"{name:30}{(one.__doc__ or '-').splitlines()[0]}")
        raise typer.Exit


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
    plugin: Plugin = None,
) -> None:
    """Write a prompt file anew, every prompt turned into an attack."""
    from demur.attacks import attack_prompts
    from demur.prompts import write_prompts

    made = attack_prompts(name, prompts_of(prompts, column, label, encoding))
    write_prompts(made, out)
    typer.echo(f"{out}: {len(made)} prompts, attack {name}")


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
