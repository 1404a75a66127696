"""The command `demur demo`.

In: nothing. Out: a folder with the studies of the bundled models, and a page that explains them.
"""

from __future__ import annotations

from pathlib import Path

import typer

from demur.cli.arguments import open_page
from demur.cli.options import Out, Resume, Seed


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
    open_page(report)
