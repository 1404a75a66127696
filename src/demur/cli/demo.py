"""The command `demur demo`.

In: nothing. Out: a folder with the studies of the bundled models, and a page that explains them.
"""

from __future__ import annotations

from pathlib import Path

from demur.cli.arguments import open_page
from demur.cli.bar import watched
from demur.cli.options import Out, Quiet, Resume, Seed
from demur.cli.output import Output


def demo(
    out: Out = Path("runs/demo"),
    seed: Seed = 0,
    resume: Resume = True,
    quiet: Quiet = False,
) -> None:
    """The whole story in minutes: three bundled models, offline, and one page that explains it."""
    told = Output(quiet)
    told.say("loading the bundled models")
    from demur.report import write_comparison, write_report, write_story, write_viewer
    from demur.studies.demo.run import run_demo

    with watched(quiet):
        found = run_demo(out, seed=seed, resume=resume, say=told.say)
    told.say("pages")
    for name, one in found.studies.items():
        write_report(one, out / name / "report.html", show_text=True)
        told.say(
            f"  every generation, step by step: {write_viewer(out / name, out / name / 'viewer.html', show_text=True)}"
        )
    write_comparison(found.comparison, out / "comparison")
    report = write_story(found, out / "report.html")
    told.say(f"report: {report}")
    told.say("next, a real model, from the Hub, a folder or a .gguf file, on these prompts and then on your own:")
    told.say("  demur study Qwen/Qwen2.5-0.5B-Instruct --out runs/qwen --prompts demur/toy")
    told.say("  demur study MODEL --out runs/mine --prompts DIR")
    open_page(report)
