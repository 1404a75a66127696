"""The command line: its commands by name, each with examples, and what becomes of errors.

In: arguments. Out: files, and news and numbers on stdout; exit code 0 when done, 2 for wrong usage or bad input (one
line on stderr), 130 after Ctrl-C, 1 for anything else. Heavy imports stand inside the commands.
"""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import typer

from demur.cli.attack import artifact, attack
from demur.cli.check import check
from demur.cli.compare import compare
from demur.cli.demo import demo
from demur.cli.group import Commands, add
from demur.cli.guard import guard_fit, guard_score
from demur.cli.guard_show import guard_push, guard_show
from demur.cli.harden import harden
from demur.cli.merge import merge
from demur.cli.paper import study_paper
from demur.cli.record import record
from demur.cli.replay import replay
from demur.cli.serve import serve
from demur.cli.signal import anchors, signal
from demur.cli.study import study
from demur.cli.view import view
from demur.errors import DemurError
from demur.files.seals import UnverifiedWarning

app = typer.Typer(
    cls=Commands,
    name="demur",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich takes longer to import than `demur --help` may take
    context_settings={"help_option_names": ["-h", "--help"]},
)
guard_app = typer.Typer(
    cls=Commands,
    help="Fit a guard on harmless generations, score with it, show what it is worth, or share it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        import demur

        typer.echo(f"demur {demur.__version__}")
        raise typer.Exit


@app.callback()
def _demur(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Record, step by step, how a language model decides to refuse; read it as a signal; guard with it."""


add(app, demo, "demo", "demur demo --out runs/demo")
add(
    app,
    study,
    "study",
    "demur study demur/tiny-ar --prompts demur/toy --out runs/toy",
    "demur study Qwen/Qwen2.5-0.5B-Instruct --prompts prompts/ --out runs/qwen",
)
add(app, study_paper, "study paper", "demur study paper --models A B --prompts prompts/ --out runs/paper")
add(app, compare, "compare", "demur compare runs/left-to-right runs/diffusion --out runs/compared")
add(app, view, "view", "demur view runs/qwen --show-text")
add(app, record, "record", "demur record demur/tiny-ar prompts.jsonl --out runs/mine --steps 32")
add(app, merge, "merge", "demur merge runs/parts/* --out runs/mine")
add(app, anchors, "anchors", "demur anchors runs/harmless runs/harmful --out anchors.safetensors")
add(app, signal, "signal", "demur signal runs/mine --anchors anchors.safetensors --out signal.parquet")
add(app, attack, "attack", "demur attack --list", "demur attack prefix-injection prompts.jsonl --out attacks.jsonl")
add(app, artifact, "artifact", "demur artifact hub:JailbreakBench/JBB-Behaviors --out behaviours.jsonl")
add(app, check, "check", "demur check Qwen/Qwen2.5-0.5B-Instruct --quick")
add(app, harden, "harden", "demur harden Qwen/Qwen2.5-0.5B-Instruct --out runs/hardened")
add(app, serve, "serve", "demur serve Qwen/Qwen2.5-0.5B-Instruct --guard runs/qwen")
add(app, replay, "replay", "demur replay verdicts.jsonl runs/mine --guard runs/qwen")
add(guard_app, guard_fit, "fit", "demur guard fit train.parquet --calibration held_out.parquet --out guard.safetensors")
add(guard_app, guard_score, "score", "demur guard score guard.safetensors signal.parquet --out scores.parquet")
add(guard_app, guard_show, "show", "demur guard show guard.safetensors", "demur guard show owner/name")
add(
    guard_app,
    guard_push,
    "push",
    "demur guard push streaming_probe_guard.safetensors owner/name --source probe_looks.safetensors",
)
app.add_typer(guard_app, name="guard")


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
    own = issubclass(category, UnverifiedWarning) or (place and "demur" in Path(str(place[0])).parts)
    if own:
        sys.stderr.write(f"demur: {DemurError(str(message))}\n")
    else:
        _print_warning(message, category, *place, **options)


if __name__ == "__main__":
    main()
