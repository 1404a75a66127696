"""Where demur takes part in vLLM: five places of its code, each changed once a process.

In: settings. Out: vLLM's own classes with demur in them. A place that is not there any more ends vLLM with its name:
the versions that were tried are those of the extra.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from demur.engines.vllm.plugin import Endpoints
from demur.engines.vllm.settings import Settings
from demur.errors import InputError

logger = logging.getLogger("vllm.demur")

EXECUTOR = "vllm.v1.executor.uniproc_executor.UniProcExecutor"
"""Puts the worker into the scheduler's process, as both share the verdicts. By its whole name: on a CPU vLLM would take
another for "uni"."""
Wrapper = Callable[..., Any]
"""Called with the original, and then with its arguments."""


def patch() -> None:
    """Change vLLM in this process; what a process does not use costs nothing there."""
    _wrap("vllm.engine.arg_utils", "EngineArgs.create_engine_config", _configured)
    for runner in _runners():
        _wrap(*runner, _loaded)
    _wrap("vllm.v1.core.sched.scheduler", "check_stop", _checked)
    _wrap("vllm.v1.engine.output_processor", "OutputProcessor.process_outputs", _processed)
    _wrap("vllm.v1.engine.output_processor", "RequestState._new_completion_output", _completed)
    _wrap("vllm.plugins", "load_endpoint_plugins", _endpoints)


def _runners() -> list[tuple[str, str]]:
    """The model runners whose `load_model` is one of their own; that of the CPU is in its wheel alone."""
    found = [("vllm.v1.worker.gpu_model_runner", "GPUModelRunner.load_model")]
    if find_spec("vllm.v1.worker.cpu_model_runner"):
        found.append(("vllm.v1.worker.cpu_model_runner", "CPUModelRunner.load_model"))
    return found


async def facts() -> dict[str, Any]:
    """What `GET /demur/guards` answers: how flagged answers are treated, and the guards."""
    settings, watched = _asked()
    return {"mode": settings.mode, "hold": settings.hold, "guards": [one.facts() for one in watched]}


@cache
def _asked() -> tuple[Settings, list[Any]]:
    """The settings and the guards of this process."""
    from demur.serve.guards import load_guards

    settings = Settings.read()
    if settings is None:
        raise InputError("DEMUR_GUARD is not set any more")
    return settings, load_guards(settings.places)


@cache
def _front() -> Any:
    from demur.engines.vllm.front import Front

    return Front(*_asked())


def _configured(original: Wrapper, arguments: Any, *others: Any, **options: Any) -> Any:
    """Before vLLM decides how to run: the guards' model, in their dtype, in a way whose states can be read."""
    from demur.engines.vllm.environment import require_supported
    from demur.engines.vllm.verify import trusted, verified

    settings, watched = _asked()
    if settings.verify:
        known, dtype = verified(
            watched, arguments.model, arguments.revision, str(arguments.dtype).removeprefix("torch.")
        )
        arguments.dtype = dtype
    else:
        logger.warning("DEMUR_VERIFY is 0: that this is the guards' model is taken on trust")
        known = trusted(watched)
    known.pass_on()
    arguments.enforce_eager = True
    arguments.distributed_executor_backend = EXECUTOR
    config = original(arguments, *others, **options)
    require_supported(config)
    _patch_server()
    return config


def _loaded(original: Wrapper, runner: Any, *others: Any, **options: Any) -> Any:
    """Once the worker's model is there, the guard watches it."""
    from demur.engines.vllm.guard import install

    found = original(runner, *others, **options)
    install(runner, *_asked())
    return found


def _checked(original: Wrapper, request: Any, max_model_len: int) -> bool:
    """Each token that the scheduler takes in: does the request end?"""
    from demur.engines.vllm.guard import the_guard

    return the_guard().after_token(request, original(request, max_model_len))


def _processed(original: Wrapper, processor: Any, outputs: Any, *others: Any, **options: Any) -> Any:
    _front().before(processor.request_states, outputs)
    return original(processor, outputs, *others, **options)


def _completed(original: Wrapper, state: Any, *others: Any, **options: Any) -> Any:
    return _front().after(state, original(state, *others, **options))


def _endpoints(original: Wrapper, *others: Any, **options: Any) -> list[Any]:
    found = list(original(*others, **options))
    return found if any(one.name == Endpoints.name for one in found) else [*found, Endpoints()]


def _patch_server() -> None:
    """The chat completions, where this process serves them."""
    chat = "vllm.entrypoints.openai.chat_completion.serving"
    _wrap(chat, "OpenAIServingChat.chat_completion_full_generator", _answered)
    _wrap(chat, "OpenAIServingChat.chat_completion_stream_generator", _streamed)
    _wrap("vllm.entrypoints.generate.beam_search.online", "BeamSearchOnlineMixin.beam_search", _no_beams)


async def _answered(
    original: Wrapper, serving: Any, request: Any, results: Any, name: str, *others: Any, **more: Any
) -> Any:
    return _front().answered(name, await original(serving, request, results, name, *others, **more))


def _streamed(original: Wrapper, serving: Any, request: Any, results: Any, name: str, *others: Any, **more: Any) -> Any:
    return _front().streamed(name, original(serving, request, results, name, *others, **more))


def _no_beams(original: Wrapper, *_: Any, **__: Any) -> Any:
    """Beams are requests of one token each, in which a guard would see no answer."""
    raise ValueError("beam search cannot be guarded; leave use_beam_search out")


def _wrap(module: str, place: str, wrapper: Wrapper) -> None:
    """Put `wrapper` around a function or method of vLLM, once."""
    owner: Any = import_module(module)
    *classes, name = place.split(".")
    for part in classes:
        owner = getattr(owner, part, None)
    original = getattr(owner, name, None)
    if original is None:
        raise InputError(
            f"this vLLM has no {module}.{place}, where demur's guard takes part; install demur[vllm]'s version"
        )
    if getattr(original, "__demur__", False):
        return

    @functools.wraps(original)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        return wrapper(original, *arguments, **options)

    wrapped.__demur__ = True  # type: ignore[attr-defined]
    setattr(owner, name, wrapped)
