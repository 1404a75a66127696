"""What demur takes of transformers' continuous batching: its manager, what is mended in it, and whether all is there.

In: a model, and how much may run at once. Out: a manager that runs requests, and the name of a part that this
transformers lacks: most parts are no public interface of it. What is done with them is in `continuous`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module
from types import FunctionType
from typing import Any

from demur.errors import InputError
from demur.models import Model

PAGE = 32
"""Tokens of a page of the cache."""
BATCH_TOKENS = 512
"""Most tokens of one pass; longer prompts come in several."""
_BATCHING = "transformers.generation.continuous_batching"
PARTS: Mapping[tuple[str, str], tuple[str, ...]] = {
    (f"{_BATCHING}.continuous_api", "ContinuousBatchingManager"): (
        *("start", "stop", "is_running", "add_request", "cancel_request"),
        *("output_router", "batch_processor", "_generation_thread"),
    ),
    (f"{_BATCHING}.continuous_api", "ContinuousBatchProcessor"): ("inputs_and_outputs",),
    (f"{_BATCHING}.input_outputs", "ContinuousBatchingIOs"): ("requests_in_batch", "logits_indices"),
    (f"{_BATCHING}.requests", "FutureRequestState"): ("state", "has_new_token"),
    (f"{_BATCHING}.requests", "RequestState"): ("request_id",),
    (f"{_BATCHING}.requests", "GenerationOutput"): ("request_id", "error"),
    (f"{_BATCHING}.scheduler", "FIFOScheduler"): ("clear_cancelled_requests", "block_new_requests"),
    ("transformers", "ContinuousBatchingConfig"): (
        *("scheduler_type", "page_size", "num_blocks", "max_batch_tokens", "max_requests_per_batch"),
        *("use_cuda_graph", "use_async_batching", "auto_switch_to_flash"),
    ),
}
"""Every class that is used, by module and name, and what is used of it."""


def lacking() -> str:
    """The first part of continuous batching that demur needs and transformers does not have; "" where all are there."""
    for (module, name), wanted in PARTS.items():
        try:
            kind = getattr(import_module(module), name)
        except (ImportError, AttributeError):
            return f"{module}.{name}"
        known = _names(kind)
        for one in wanted:
            if one not in known:
                return f"{module}.{name}.{one}"
    return "" if hasattr(import_module(f"{_BATCHING}.scheduler"), "SCHEDULER_MAPPING") else "SCHEDULER_MAPPING"


def _names(kind: type) -> set[str]:
    """The attributes of a class, its fields, and those that its methods name, which its objects are given."""
    found = set(dir(kind)) | set(getattr(kind, "__annotations__", ()))
    for base in inspect.getmro(kind):
        methods = (one for one in vars(base).values() if isinstance(one, FunctionType))
        found.update(*(method.__code__.co_names for method in methods))
    return found


def make_manager(model: Model, slots: int, longest: int, cache_bytes: int, fail: Callable[[str, str], None]) -> Any:
    """A manager that runs `slots` requests of at most `longest` tokens in `cache_bytes` of keys and values.

    fail : is told the name of a request that failed, and why. Raises `InputError` for a network that cannot be run.
    """
    from transformers import ContinuousBatchingConfig, GenerationConfig

    network = model.network
    attention = str(network.config._attn_implementation)
    if attention not in ("sdpa", "paged|eager") and "flash" not in attention:
        network.set_attn_implementation("paged|eager")
    pages = math.ceil((longest + 2) / PAGE)
    # Where it is too small for all slots at their longest, the manager starts some again when it is full.
    blocks = max(pages + 1, min(slots * pages, cache_bytes // (PAGE * bytes_of_token(model))))
    batching = ContinuousBatchingConfig(
        scheduler_type=_scheduler(),
        page_size=PAGE,
        num_blocks=blocks,
        max_batch_tokens=max(BATCH_TOKENS, slots),
        max_requests_per_batch=slots,
        use_cuda_graph=False,
        use_async_batching=False,
        auto_switch_to_flash=False,
    )
    decoding = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=model.pad_token_id)
    try:
        manager = network.init_continuous_batching(generation_config=decoding, continuous_batching_config=batching)
    except (ValueError, AttributeError, NotImplementedError) as error:
        raise InputError(f"{model.name}: continuous batching cannot run it ({error}); give --engine batches") from error
    manager.output_router = _Faults(fail)
    return manager


def bytes_of_token(model: Model) -> int:
    """What one token takes in the cache: keys and values of every layer."""
    config = model.config
    heads = int(config.num_attention_heads)
    size = int(getattr(config, "head_dim", None) or model.width // heads)
    kept = int(getattr(config, "num_key_value_heads", None) or heads)
    return 2 * model.layer_count * kept * size * model.dtype.itemsize


@cache
def _scheduler() -> str:
    """The name of the manager's scheduler, mended: a request that is cancelled lets others in, as one that ends does.

    Once the cache has been full, transformers lets no request in before one has ended by itself; here each ends by
    being cancelled, and all would wait for ever.
    """
    from transformers.generation.continuous_batching.scheduler import SCHEDULER_MAPPING, FIFOScheduler

    class Scheduler(FIFOScheduler):  # type: ignore[misc]
        def clear_cancelled_requests(self) -> Any:
            found = super().clear_cancelled_requests()
            if found:
                self.block_new_requests = False
            return found

    SCHEDULER_MAPPING["demur"] = Scheduler
    return "demur"


class _Faults:
    """Takes the place of the manager's router of results, of which only faults are wanted."""

    def __init__(self, fail: Callable[[str, str], None]) -> None:
        self._fail = fail

    def deliver(self, output: Any) -> None:
        if output.error:
            self._fail(output.request_id, str(output.error))

    def deliver_batch(self, outputs: Sequence[Any]) -> None:
        for output in outputs:
            self.deliver(output)

    def fail_and_deliver(self, state: Any, error: Exception) -> None:
        self._fail(state.request_id, str(error))
