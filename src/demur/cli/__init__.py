"""The command line."""

from demur.cli.commands import app, main

__all__ = ["app", "main"]
