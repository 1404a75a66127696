"""Options that several commands share: of the chat format, and of how prompt files are to be read.

In: what was typed. Out: arguments of `demur.load`, and `ReadOptions`. What they mean is said where they are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.errors import InputError

if TYPE_CHECKING:
    from demur.prompts import ReadOptions

System = Annotated[
    str | None, typer.Option(metavar="TEXT", help='System prompt; by default "You are a helpful assistant".')
]
NoSystem = Annotated[bool, typer.Option("--no-system", help="Give the model no system prompt.")]
Template = Annotated[
    str | None, typer.Option(metavar="NAME", help="Chat template: the name of one of the model's, or a .jinja file.")
]
TemplateArg = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="What the chat template reads, as enable_thinking=false; repeatable."),
]
Column = Annotated[
    list[str] | None,
    typer.Option(metavar="FIELD=COLUMN", help="The file's column of a field, as prompt=goal; repeatable."),
]
Label = Annotated[
    list[str] | None,
    typer.Option(metavar="LABEL=VALUE", help="The file's value of a label, as harmful=1; repeatable."),
]
Encoding = Annotated[str, typer.Option(help="Encoding of text files of prompts.")]


def chat_options(
    system: str | None, no_system: bool, template: str | None, template_arg: list[str] | None
) -> dict[str, Any]:
    """Arguments of `demur.load` for the chat format; only what was asked for."""
    if system is not None and no_system:
        raise InputError("--system and --no-system exclude each other; give one of them")
    found: dict[str, Any] = {}
    if system is not None or no_system:
        found["system"] = system
    if template is not None:
        found["template"] = template
    if template_arg:
        from demur.models.templates import argument_of

        found["template_arguments"] = dict(argument_of(text) for text in template_arg)
    return found


def read_options(column: list[str] | None, label: list[str] | None, encoding: str) -> ReadOptions:
    """How the prompt files are to be read."""
    from demur.prompts import ReadOptions

    labels: dict[str, list[str]] = {}
    for text in label or []:
        name, value = _pair("--label", "LABEL=VALUE", text)
        labels.setdefault(name, []).append(value)
    return ReadOptions(columns_of("--column", column), labels, encoding)


def columns_of(option: str, given: list[str] | None) -> dict[str, str | None]:
    """Columns by field; an empty column reads the field as missing."""
    pairs = (_pair(option, "FIELD=COLUMN", text) for text in given or [])
    return {name: column or None for name, column in pairs}


def _pair(option: str, form: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"{option} {text!r} is not of the form {form}")
    return name.strip(), value
