"""What is special about demur's groups of commands: their help, names of two words, and Ctrl-C.

In: what was typed. Out: the command that is meant. What a command does is its own file's business.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from demur.files.seals import allow_unverified

if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells have it."""


class Commands(typer.core.TyperGroup):
    """Commands of one word, and of two where the first is also a command by itself: "study paper"."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        joined = " ".join(args[:2])
        return super().resolve_command(ctx, [joined, *args[2:]] if joined in self.commands else args)

    def invoke(self, ctx: Any) -> Any:
        try:
            with allow_unverified(False):  # what the option sets ends with its command
                return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.stderr.write("demur: stopped; the same command goes on\n")
            sys.exit(INTERRUPTED)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands with whole descriptions, over several lines where need be."""
        rows = [(name, _first_line(self.commands[name])) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def add(group: typer.Typer, command: Callable[..., None], name: str, *examples: str) -> None:
    """Give a group a command whose help ends with examples."""
    lines = "\n".join(f"  {example}" for example in examples)
    group.command(name, epilog=f"\b\n{'Examples' if len(examples) > 1 else 'Example'}:\n{lines}")(command)


def _first_line(command: Any) -> str:
    return (command.help or "").strip().split("\n", 1)[0]
