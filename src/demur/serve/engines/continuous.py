"""Autoregressive generations on transformers' continuous batching: requests come and go between any two passes.

In: jobs. Out: their tokens and verdicts. Every pass of the manager is one packed row; a hook on the network reads from
it the states of each request's newest token, asks the guards, and chooses the next token itself, as demur's
`Autoregressive` does. So temperature, top_p and seed belong to each request, and tokens are those of a recording.

A token's state exists once the token is fed back. The last token of an answer is therefore fed too where a guard has
still to look at it. CUDA graphs and asynchronous batching run no hooks and stay off.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from demur.errors import InputError
from demur.models import Model
from demur.samplers.autoregressive import draw_tokens
from demur.samplers.step import row_seed
from demur.serve.engines.engine import EngineDown, Mailbox
from demur.serve.guards import Guards
from demur.serve.job import Job, Reason, Update

PAGE = 32
"""Tokens of a page of the cache."""
BATCH_TOKENS = 512
"""Most tokens of one pass; longer prompts come in several."""
_LOG = logging.getLogger("demur.serve")


@dataclass(eq=False)
class _Row:
    """A job under way.

    tokens : of the answer so far; `fed` of them the guards have seen, `sent` were reported, `cleared` have a verdict.
    ending : why it ends once its last token was fed, too.
    """

    job: Job
    draws: torch.Generator | None
    tokens: list[int] = field(default_factory=list)
    fed: int = 0
    sent: int = 0
    cleared: int = 0
    opened: bool = False
    by_prompt: bool = False
    ending: Reason | None = None


class Continuous:
    """An `Engine` on transformers' continuous batching.

    slots : requests in a pass. longest : most tokens of prompt and answer. cache_bytes : for keys and values; more only
    where one request at its longest would not fit. suppress_eos : as of the sampler that the guards were made for.
    Raises `InputError` for a network that it cannot run.
    """

    adjustable = True

    def __init__(
        self, model: Model, guards: Guards, *, slots: int, longest: int, cache_bytes: int, suppress_eos: bool = False
    ) -> None:
        self.model, self.guards, self.longest = model, guards, longest
        self._slots, self._cache, self._suppress = slots, cache_bytes, suppress_eos
        self._eos = set(model.eos_token_ids)
        self._rows: dict[str, _Row] = {}
        self._closing: deque[str] = deque()  # names that the guards are to forget
        self._opened: set[str] = set()  # names that the guards know; the manager's thread alone reads and writes it
        self._lock = threading.Lock()
        self._hooks: list[Any] = []
        self._manager: Any = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._mailbox = Mailbox(loop)
        self._manager = self._made_manager()
        self._manager.output_router = _Faults(self._fail)
        self._passes_open = self.model.thread_passes(self.guards.layers)
        self._passes = self._passes_open.__enter__()
        network = self.model.network
        self._hooks = [network.register_forward_hook(self._after, with_kwargs=True)]
        self._manager.start()

    def _made_manager(self) -> Any:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        network = self.model.network
        if network.config._attn_implementation not in ("sdpa", "paged|eager") and "flash" not in str(
            network.config._attn_implementation
        ):
            network.set_attn_implementation("paged|eager")
        pages = math.ceil((self.longest + 2) / PAGE)
        # Where it is too small for all slots at their longest, the manager starts some again when it is full.
        blocks = max(pages + 1, min(self._slots * pages, self._cache // (PAGE * bytes_of_token(self.model))))
        batching = ContinuousBatchingConfig(
            scheduler_type=_scheduler(),
            page_size=PAGE,
            num_blocks=blocks,
            max_batch_tokens=max(BATCH_TOKENS, self._slots),
            max_requests_per_batch=self._slots,
            use_cuda_graph=False,
            use_async_batching=False,
            auto_switch_to_flash=False,
        )
        decoding = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=self.model.pad_token_id)
        try:
            return network.init_continuous_batching(generation_config=decoding, continuous_batching_config=batching)
        except (ValueError, AttributeError, NotImplementedError) as error:
            raise InputError(
                f"{self.model.name}: continuous batching cannot run it ({error}); give --engine batches"
            ) from error

    def submit(self, job: Job) -> None:
        draws = None
        if job.temperature > 0:
            draws = torch.Generator().manual_seed(row_seed(torch.tensor(job.ids), job.seed, job.sample))
        with self._lock:
            self._rows[job.id] = _Row(job, draws)
        made = self._manager.add_request(
            job.ids, request_id=job.id, max_new_tokens=job.max_tokens + 2, eos_token_id=-1
        )  # it never ends by itself: whoever takes it out of `_rows` cancels it, once
        if made is None:
            self._forget(job.id)
            raise EngineDown("the engine has ended; start the server again")

    def cancel(self, job: Job) -> None:
        if self._forget(job.id):
            job.cancelled = True
            self._closing.append(job.id)
            self._manager.cancel_request(job.id)

    def stop(self) -> None:
        if self._manager is None:
            return
        self._manager.stop(block=True, timeout=30, hard_stop=True)
        for hook in self._hooks:
            hook.remove()
        self._passes_open.__exit__(None, None, None)
        self._manager = None

    @property
    def healthy(self) -> bool:
        return self._manager is not None and self._manager.is_running()

    @property
    def running(self) -> int:
        return sum(row.opened for row in list(self._rows.values()))

    @property
    def waiting(self) -> int:
        return sum(not row.opened for row in list(self._rows.values()))

    def _forget(self, name: str) -> _Row | None:
        with self._lock:
            return self._rows.pop(name, None)

    def _fail(self, name: str, fault: str) -> None:
        row = self._forget(name)
        if row is not None:
            self._closing.append(name)
            self._mailbox.post([(row.job, Update((), row.cleared, "error", len(row.tokens), fault=fault))])

    @torch.no_grad()
    def _after(self, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """A pass of the manager has run: judge what was fed, choose what is next."""
        if "logits_indices" not in kwargs or threading.current_thread() is not self._manager._generation_thread:
            return
        states, _ = self._passes.take()
        batch = self._manager.batch_processor.inputs_and_outputs.requests_in_batch
        named = [one.state for one in batch if one.has_new_token]
        if not named:
            return
        places = kwargs["logits_indices"][: len(named)].long()
        logits = output.logits[0]
        logits = logits[: len(named)] if "logits_to_keep" in kwargs else logits[places]
        chosen = self._choose([state.request_id for state in named], logits)
        target = torch.arange(len(named)) if "logits_to_keep" in kwargs else places
        output.logits[0, target.to(chosen.device), chosen] = torch.inf  # so that the manager takes the same tokens
        newest = [state[0, places] for state in states] if self.guards.layers else []
        self._judge([state.request_id for state in named], newest)
        self._mailbox.post(self._advance([state.request_id for state in named], chosen.tolist()))

    def _choose(self, names: list[str], logits: torch.Tensor) -> torch.Tensor:
        """The next token of every row, int64 ``[rows]``, from logits ``[rows, vocabulary]``."""
        if self._suppress:
            logits[:, [one for one in self._eos if one < logits.shape[1]]] = -torch.inf
        chosen = logits.argmax(dim=-1)
        for place, name in enumerate(names):
            row = self._rows.get(name)
            if row is not None and row.draws is not None:
                kept = nucleus(logits[place : place + 1].float(), row.job.temperature, row.job.top_p)
                draw = torch.rand(1, generator=row.draws, dtype=torch.float64).to(logits.device)
                chosen[place] = draw_tokens(kept, row.job.temperature, draw)[0]
        return chosen

    def _judge(self, names: list[str], newest: list[torch.Tensor]) -> None:
        """Open the requests that begin, close those that are gone, and let the guards see the others' newest token."""
        while self._closing:
            name = self._closing.popleft()
            if name in self._opened:
                self._opened.discard(name)
                self.guards.close(name)
        judged: list[int] = []
        begun: list[int] = []
        for place, name in enumerate(names):
            row = self._rows.get(name)
            if row is None:
                continue
            if not row.opened:
                self.guards.open(name)
                self._opened.add(name)
                row.opened = True
                begun.append(place)
            elif row.fed < len(row.tokens) <= self.guards.last_step:
                judged.append(place)
                row.fed = len(row.tokens)
        if begun and self.guards.has_prompt:
            self._judge_prompts([names[place] for place in begun], self._at(newest, begun))
        if judged:
            self.guards.take([names[place] for place in judged], self._at(newest, judged))

    def _judge_prompts(self, names: list[str], states: torch.Tensor) -> None:
        stopped = self.guards.prompt(names, states)
        for name, stop in zip(names, stopped, strict=True):
            row = self._rows.get(name)
            if row is not None:
                row.by_prompt = bool(stop)
                row.job.prompt_scores = self.guards.prompt_scores(name)

    @staticmethod
    def _at(states: list[torch.Tensor], rows: list[int]) -> torch.Tensor:
        """Of states a layer, those of some rows, ``[rows, layers, width]``."""
        at = torch.tensor(rows, device=states[0].device)
        return torch.stack([one[at] for one in states], dim=1)

    def _advance(self, names: list[str], chosen: list[int]) -> list[tuple[Job, Update]]:
        news = []
        for name, token in zip(names, chosen, strict=True):
            row = self._rows.get(name)
            if row is not None and (update := self._next(row, token)) is not None:
                news.append((row.job, update))
        return news

    def _next(self, row: _Row, token: int) -> Update | None:
        """What there is to tell of a row, of which one more token was fed and the next is chosen."""
        job, name = row.job, row.job.id
        stop = self.guards.stopped_at(name)
        if stop and (job.block_prompt if row.by_prompt and not row.tokens else job.block):
            return self._end(row, "content_filter", stop)
        if row.ending is not None:
            return self._end(row, row.ending)
        looked = self.guards.cleared(name)
        row.tokens.append(token)
        row.cleared = len(row.tokens) if looked is None else looked
        reason: Reason | None = "stop" if token in self._eos else None
        if reason is None and len(row.tokens) == job.max_tokens:
            reason = "length"
        if reason is not None:
            if self.guards.last_step >= len(row.tokens):
                row.ending = reason
            else:
                return self._end(row, reason)
        return self._told(row) if job.follow else None

    def _told(self, row: _Row) -> Update:
        new, row.sent = tuple(row.tokens[row.sent :]), len(row.tokens)
        return Update(new, row.cleared)

    def _end(self, row: _Row, reason: Reason, stop: int = 0) -> Update | None:
        """The last update of a row, whose place is free with it; None where nobody waits for it any more."""
        name, cleared = row.job.id, row.cleared
        if not stop:
            self.guards.finish(name, cut=reason == "length")
            stop = self.guards.stopped_at(name)
            reason = "content_filter" if stop and row.job.block else reason
        verdicts = self.guards.close(name)
        self._opened.discard(name)
        self._manager.cancel_request(name)
        if self._forget(name) is None:
            return None
        count = len(row.tokens)
        blocked = reason == "content_filter"
        shown = min(stop, count) if blocked else count
        tokens = tuple(row.tokens[row.sent :])
        return Update(
            tokens, min(cleared, shown) if blocked else count, reason, shown, stop, verdicts, by_prompt=row.by_prompt
        )


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


def bytes_of_token(model: Model) -> int:
    """What one token takes in the cache: keys and values of every layer."""
    config = model.config
    heads = int(config.num_attention_heads)
    size = int(getattr(config, "head_dim", None) or model.width // heads)
    kept = int(getattr(config, "num_key_value_heads", None) or heads)
    return 2 * model.layer_count * kept * size * model.dtype.itemsize


def nucleus(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Logits ``[rows, vocabulary]`` with all but the likeliest tokens that make up `top_p` at minus infinity.

    The likeliest is always kept. Source: Holtzman et al., The Curious Case of Neural Text Degeneration (2019).
    """
    if top_p >= 1:
        return logits
    ordered, places = (logits / temperature).sort(dim=-1, descending=True)
    before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
    dropped = torch.zeros_like(before, dtype=torch.bool).scatter(1, places, before >= top_p)
    return logits.masked_fill(dropped, -torch.inf)


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
