"""The engines that generate, by the name that --engine gives.

In: a name and the options of the engine. Out: what `record` takes as `engine`, ended with the command, and the
device on which demur itself loads the model beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from demur.errors import InputError

if TYPE_CHECKING:
    from demur.recording.engine import Engine

ENGINES = ("local", "ray", "vllm")

EngineName = Annotated[
    str, typer.Option("--engine", help="What generates: local, ray or vllm; the last two are extras.")
]
RayAddress = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="A running Ray cluster, as auto; by default one is started here.")
]
RayActors = Annotated[int | None, typer.Option(min=1, help="Ray workers; by default one a GPU, or else 2.")]
RayGpus = Annotated[
    float | None, typer.Option(min=0, help="GPUs of each Ray worker; by default 1 where there are any.")
]
RayThreads = Annotated[int | None, typer.Option(min=1, help="Threads of each Ray worker; by default as many as here.")]
RayTimeout = Annotated[
    float | None, typer.Option(min=1, help="Seconds for a batch, after which a Ray worker is started anew.")
]
RayStore = Annotated[
    str | None,
    typer.Option(metavar="URL", help="A shared folder, or a URL as s3://…, where Ray workers put finished batches."),
]


@contextmanager
def engine_of(
    name: str,
    address: str | None = None,
    actors: int | None = None,
    gpus: float | None = None,
    threads: int | None = None,
    timeout: float | None = None,
    store: str | None = None,
) -> Iterator[Engine | None]:
    """The engine of a name, which ends with the block; None for demur's own loop."""
    if name not in ENGINES:
        raise InputError(f"--engine is {name!r}; give one of {', '.join(ENGINES)}")
    options: dict[str, Any] = {"actors": actors, "gpus": gpus, "threads": threads, "timeout": timeout, "store": store}
    asked = {"address": address, **options}
    if name != "ray" and (given := [f"--ray-{option}" for option, value in asked.items() if value is not None]):
        raise InputError(f"{given[0]} is for --engine ray; leave it out, or give --engine ray")
    if name == "local":
        yield None
        return
    if name == "vllm":
        from demur.engines.vllm.engine import VllmEngine

        with VllmEngine() as vllm:
            yield vllm
        return
    from demur.engines.ray import RayEngine

    with RayEngine(address, **options) as engine:
        yield engine


def device_beside(engine: str, device: str) -> str:
    """Where demur loads the model: beside vLLM on the CPU, for its name and tokenizer, as vLLM takes the GPU."""
    return "cpu" if engine == "vllm" and device == "auto" else device
