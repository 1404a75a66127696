"""The engines of `demur record`, by the name that --engine gives.

In: a name. Out: what `record` takes as `engine`, and the device on which demur itself loads the model beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from demur.errors import InputError

if TYPE_CHECKING:
    from demur.recording.engine import Engine

ENGINES = ("local", "vllm")


def engine_of(name: str) -> Engine | None:
    """The engine of a name; None for demur's own loop."""
    if name not in ENGINES:
        raise InputError(f"--engine is {name!r}; give one of {', '.join(ENGINES)}")
    if name == "local":
        return None
    from demur.engines.vllm.engine import VllmEngine

    return VllmEngine()


def device_beside(engine: str, device: str) -> str:
    """Where demur loads the model: beside vLLM on the CPU, for its name and tokenizer, as vLLM takes the GPU."""
    return "cpu" if engine == "vllm" and device == "auto" else device
