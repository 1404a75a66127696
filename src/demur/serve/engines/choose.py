"""The engine that a model is served on.

In: a model, its guards, settings. Out: an engine, how long answers may be, and the temperature that the guards were
made at. Networks that continuous batching cannot run fall back to demur's own samplers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from demur.errors import InputError
from demur.models import Model
from demur.serve.engines.batches import Batches
from demur.serve.engines.continuous import Continuous
from demur.serve.engines.engine import Engine
from demur.serve.engines.manager import lacking
from demur.serve.guards import Guards, Watched
from demur.serve.settings import Settings

UNGUARDED_TOKENS = 256
"""Most tokens of an answer where no guard says how far it looks."""
_LOG = logging.getLogger("demur.serve")


def engine_for(model: Model, watched: Sequence[Watched], settings: Settings) -> tuple[Engine, int, float]:
    """The engine, the most tokens of an answer, and the temperature where a request names none."""
    sampler = _sampler(model, watched)
    guards = Guards(model, watched, settings.slots)
    if model.tokenizer is None:
        raise InputError(f"{model.name}: has no tokenizer files, so text cannot be served; put them into its folder")
    temperature = float(sampler.get("temperature") or 0)
    if not model.traits.left_to_right:
        if settings.engine == "continuous":
            raise InputError(f"{model.name}: is a diffusion model, which only --engine batches serves")
        canvas = int(sampler.get("response_length") or model.default_sampler().response_length)
        longest = min(settings.max_tokens or canvas, canvas)
        engine = Batches(model, guards, sampler, slots=settings.slots, longest=settings.max_prompt_tokens + canvas)
        return engine, longest, temperature
    longest = settings.max_tokens or guards.last_step or UNGUARDED_TOKENS
    whole = settings.max_prompt_tokens + longest
    if settings.engine == "continuous" and (part := lacking()):
        raise InputError(
            f"transformers {version('transformers')} has no {part}, which continuous batching needs; give --engine "
            "batches, or install transformers 5.23"
        )
    if settings.engine != "batches" and _runs(model):
        suppress = bool(sampler.get("suppress_eos"))
        return (
            Continuous(
                model, guards, slots=settings.slots, longest=whole, cache_bytes=settings.cache, suppress_eos=suppress
            ),
            longest,
            temperature,
        )
    if settings.engine == "continuous":
        raise InputError(f"{model.name}: continuous batching cannot run this network; give --engine batches")
    return Batches(model, guards, sampler, slots=settings.slots, longest=whole), longest, temperature


def _sampler(model: Model, watched: Sequence[Watched]) -> Mapping[str, Any]:
    """The sampler that all guards were made for; `InputError` where they differ."""
    if not watched:
        return model.default_sampler().describe()  # type: ignore[no-any-return]
    first = watched[0].sampler
    for one in watched:
        if {**one.sampler, "seed": 0} != {**first, "seed": 0}:
            raise InputError(f"{one.name} and {watched[0].name} were made for different samplers; serve one of them")
        if model.traits.left_to_right and one.sampler.get("pooling") != "paper":
            raise InputError(f"{one.name}: was made with pooling {one.sampler.get('pooling')}; record with 'paper'")
    return first


def _runs(model: Model) -> bool:
    """Whether continuous batching is made for this network."""
    network = model.network
    if not hasattr(network, "init_continuous_batching") or model.final_norm is not None:
        return False
    if part := lacking():
        _LOG.warning("this transformers has no %s; demur's own sampler serves %s in batches", part, model.name)
        return False
    kinds = set(getattr(model.config, "layer_types", None) or ["full_attention"])
    known = kinds <= {"full_attention", "sliding_attention"}
    if not known or getattr(network, "_is_stateful", False):
        _LOG.warning("%s: continuous batching cannot run this network; demur's own sampler serves it", model.name)
        return False
    return True
