"""Options that several commands share, as types: each is named and explained here once.

What is made of their values is in `demur.cli.arguments`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from demur.cli.plugins import load_plugins
from demur.files.seals import set_allow_unverified

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
Mode = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="How to decode a model whose config does not tell: 2.0, 2.1, mdlm or bd3lm."),
]
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help="Hub id, checkpoint folder or .gguf file.")]
Steps = Annotated[int, typer.Option(help="T, the number of steps of a generation.")]
BatchSize = Annotated[int, typer.Option(help="Prompts generated together; never changes a result.")]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.")]
SamplerName = Annotated[
    str | None, typer.Option("--sampler", help="Sampler class, or MODULE:CLASS; by default the model's own.")
]
SamplerArguments = Annotated[
    list[str] | None,
    typer.Option("--sampler-arg", metavar="NAME=VALUE", help="An argument of the sampler; repeatable."),
]
Resume = Annotated[bool, typer.Option(help="Go on where an earlier run stopped; --no-resume starts anew.")]
QuickCheck = Annotated[
    bool, typer.Option("--check/--no-check", help="Stop where the quick form of `demur check` fails.")
]
GUARD = "A guard's file, a folder that save_pretrained wrote, or owner/name on the Hub."
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
FamilyName = Annotated[
    str | None,
    typer.Option(
        "--family", help="Load a checkpoint as of this family, as autoregressive where its config speaks of masks."
    ),
]
Attention = Annotated[str | None, typer.Option(help="Attention of transformers, as eager, sdpa or flash_attention_2.")]
CacheKind = Annotated[str | None, typer.Option("--cache", help="Cache of an autoregressive model: dynamic or static.")]
Compile = Annotated[bool, typer.Option("--compile", help="Compile each block with torch.compile.")]
DeviceMap = Annotated[str | None, typer.Option(help="auto: spread the model over all GPUs, in place of --device.")]
TpPlan = Annotated[
    str | None, typer.Option(help="auto: split the model over the processes of torchrun, by transformers' plan.")
]
Revision = Annotated[str | None, typer.Option(help="Revision of a Hub model.")]
Out = Annotated[Path, typer.Option(help="Where to write.")]
JudgeName = Annotated[
    str | None,
    typer.Option("--judge", help="complies, complies:N (first N words), chat:MODEL or http://ADDRESS."),
]
JudgeModel = Annotated[str | None, typer.Option(help="Name of the model to ask at the judge's address.")]
JudgeKeyEnv = Annotated[str | None, typer.Option(help="Environment variable that holds the address's key.")]
JudgeCache = Annotated[Path | None, typer.Option(help="File that keeps verdicts; by default OUT/verdicts.jsonl.")]
AllowUnverified = Annotated[
    bool,
    typer.Option(
        "--allow-unverified", callback=set_allow_unverified, help="Read files of demur 0.1, which carry no hash."
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no news, no bar and no tables.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON on stdout, and news on stderr.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print the numbers as CSV on stdout, and news on stderr.")]
Harden = Annotated[
    bool, typer.Option("--harden", help="Fit guards on the shipped training material too, and compare them.")
]
HardenRounds = Annotated[
    int | None, typer.Option(help="How much of the material: 1 to 8, by default all; 280 generations each.")
]
HardenLongest = Annotated[
    int | None,
    typer.Option(
        help="Tokens; longer prompts of the material are in its first round only, which saves most of the time."
    ),
]
Plugin = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODULE",
        callback=load_plugins,
        is_eager=True,
        help="Python module to import first, with own attacks, samplers or guards; repeatable.",
    ),
]
