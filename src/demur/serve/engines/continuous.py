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
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from demur.errors import InputError
from demur.models import Model
from demur.samplers.autoregressive import draw_tokens
from demur.samplers.step import row_seed
from demur.serve.engines.engine import EngineDown, Mailbox
from demur.serve.engines.manager import make_manager
from demur.serve.engines.row import Row
from demur.serve.guards import Guards
from demur.serve.job import Job, Reason, Update

_LOG = logging.getLogger("demur.serve")


@dataclass(eq=False)
class _Row(Row):
    """A request of the manager. fed : tokens that the guards have seen. ending : why it ends once its last token was
    fed, too."""

    draws: torch.Generator | None = None
    fed: int = 0
    opened: bool = False
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
        self._manager = make_manager(self.model, self._slots, self.longest, self._cache, self._fail)
        # cuDNN's attention plans anew for every new shape, and each pass of a server has another: on an H100 this took
        # four fifths of the time (docs/serve.md).
        self._cudnn = torch.backends.cuda.cudnn_sdp_enabled()  # type: ignore[no-untyped-call]
        torch.backends.cuda.enable_cudnn_sdp(False)
        self._passes_open = self.model.thread_passes(self.guards.layers)
        self._passes = self._passes_open.__enter__()
        network = self.model.network
        self._hooks = [network.register_forward_hook(self._after, with_kwargs=True)]
        self._manager.start()

    def submit(self, job: Job) -> None:
        draws = None
        if job.temperature > 0:
            draws = torch.Generator().manual_seed(row_seed(torch.tensor(job.ids), job.seed, job.sample))
        with self._lock:
            self._rows[job.id] = _Row(job, draws=draws)
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
        torch.backends.cuda.enable_cudnn_sdp(self._cudnn)
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
        if threading.current_thread() is not self._manager._generation_thread:
            return
        if "logits_indices" not in kwargs:
            raise InputError("the manager's pass does not say which of its positions are the newest tokens")
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
        newest = [state[0, places.to(state.device)].to(self.model.device) for state in states]
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
                row.opened, row.looked = True, self.guards.cleared(name)
                begun.append(place)
            elif row.fed < len(row.tokens) <= self.guards.last_step:
                judged.append(place)
                row.fed = len(row.tokens)
        if begun and self.guards.has_prompt:
            self._judge_prompts([names[place] for place in begun], self._at(newest, begun))
        if judged:
            asked = [names[place] for place in judged]
            looked = self.guards.take(asked, self._at(newest, judged))
            for name in np.array(asked)[looked].tolist():
                self._heard(name)

    def _heard(self, name: str) -> None:
        """A guard has looked at this request."""
        row = self._rows.get(name)
        if row is not None:
            row.heard(self.guards)

    def _judge_prompts(self, names: list[str], states: torch.Tensor) -> None:
        stopped = self.guards.prompt(names, states)
        for name, stop in zip(names, stopped, strict=True):
            row = self._rows.get(name)
            if row is not None:
                row.by_prompt = bool(stop)
                row.job.prompt_scores = self.guards.prompt_scores(name)
                self._heard(name)

    @staticmethod
    def _at(states: list[torch.Tensor], rows: list[int]) -> torch.Tensor:
        """Of states a layer, those of some rows in order, ``[rows, layers, width]``."""
        if len(rows) == len(states[0]):
            return torch.stack(states, dim=1)
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
        job, before = row.job, row.cleared
        if row.stop and (job.block_prompt if row.by_prompt and not row.tokens else job.block):
            return self._end(row, "content_filter", row.stop)
        if row.ending is not None:
            return self._end(row, row.ending)
        row.tokens.append(token)
        row.cleared = len(row.tokens) if row.looked is None else row.looked
        reason: Reason | None = "stop" if token in self._eos else None
        if reason is None and len(row.tokens) == job.max_tokens:
            reason = "length"
        if reason is not None:
            if self.guards.last_step >= len(row.tokens):
                row.ending = reason
            else:
                return self._end(row, reason)
        return row.told() if job.follow and (row.cleared > before or not job.held) else None

    def _end(self, row: _Row, reason: Reason, stop: int = 0) -> Update | None:
        """The last update of a row, whose place is free with it; None where nobody waits for it any more."""
        name = row.job.id
        if not stop:
            self.guards.finish(name, cut=reason == "length")
            stop = self.guards.stopped_at(name)
            reason = "content_filter" if stop and row.job.block else reason
        verdicts = self.guards.close(name)
        self._opened.discard(name)
        self._manager.cancel_request(name)
        if self._forget(name) is None:
            return None
        return row.ended(reason, stop, stop, verdicts)


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
