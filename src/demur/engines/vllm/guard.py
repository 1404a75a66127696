"""The guard inside vLLM's engine process: states are judged in the worker, and the scheduler ends what is flagged.

In: a model runner of vLLM (V1) and its scheduler's decisions. Out: requests that end where a guard stops them, with the
verdicts in the text that vLLM sends along with each token as `stop_reason`. What a client reads is made in `front`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from demur.engines.vllm.environment import require_supported
from demur.engines.vllm.messages import Said, encode
from demur.engines.vllm.settings import KnownModel, Settings
from demur.engines.vllm.states import Pass, RunnerStates
from demur.errors import InputError
from demur.serve.guards import Guards, Watched

_guard: GuardedRunner | None = None
"""The guard of this process, which holds the worker and the scheduler."""


def the_guard() -> GuardedRunner:
    """The guard of this process; an `InputError` where the worker runs in another one: nothing passes unseen."""
    if _guard is None:
        raise InputError("demur's guard is not in the process of vLLM's scheduler; start vLLM with one worker")
    return _guard


def install(runner: Any, settings: Settings, watched: Sequence[Watched]) -> None:
    """Put the guard into a model runner whose model is loaded."""
    global _guard
    require_supported(runner.vllm_config)
    guards = Guards(KnownModel.received(), watched, runner.max_num_reqs)  # type: ignore[arg-type]
    _guard = GuardedRunner(runner, guards, block=settings.mode == "block")


class GuardedRunner:
    """Judges every token that is fed, and remembers which requests end where.

    A request is stopped by step t in the pass that chooses token t + 1; that token is replaced by end-of-sequence.
    """

    def __init__(self, runner: Any, guards: Guards, *, block: bool) -> None:
        self.runner, self.guards, self.block = runner, guards, block
        self._seen = RunnerStates(runner, guards.layers)
        self._steps: dict[str, int] = {}  # of each open request, how many tokens were judged
        self._ends: dict[str, int] = {}  # of each stopped request, how many tokens it ends with
        self._texts: dict[str, str] = {}  # what is told of each request until the next look at it
        self._end_token = _end_token(runner)
        self._wrap_sample()
        self._wrap_finished()

    def after_token(self, request: Any, done: bool) -> bool:
        """Whether a request ends with the token that it was just given; its `stop_reason` says what the guards said.

        request : of vLLM's scheduler. done : whether it ends by itself.
        """
        name, length = request.request_id, str(request.status).endswith("LENGTH_CAPPED")
        if name not in self._steps:
            raise InputError(f"request {name} was given a token in a pass that demur did not see")
        own = request.stop_reason if done else None
        stopped = request.num_output_tokens >= self._ends.get(name, request.num_output_tokens + 1)
        if done and not stopped:
            self.guards.finish(name, cut=length)
            stopped = self.block and self.guards.stopped_at(name) > 0
        if stopped:
            request.status = type(request.status).FINISHED_STOPPED
            own = None
        if done or stopped or name not in self._texts:
            self._texts[name] = self._said(name, stopped, own)
        request.stop_reason = self._texts[name]
        return bool(done or stopped)

    def _said(self, name: str, stopped: bool, own: int | str | None) -> str:
        """What the guards say of a request, as text."""
        verdicts = {one: tap.verdict(name) for one, tap in zip(self.guards.names, self.guards.taps, strict=True)}
        return encode(Said(verdicts, self.guards.cleared(name), stopped, own, self._ends.get(name) == 1))

    def _wrap_sample(self) -> None:
        sample = self.runner._sample

        def guarded(logits: Any, *others: Any, **options: Any) -> Any:
            ended = self._judge(self._seen.take())
            output = sample(logits, *others, **options)
            for row in ended:
                output.sampled_token_ids[row, 0] = self._end_token
            return output

        self.runner._sample = guarded

    def _wrap_finished(self) -> None:
        update = self.runner._update_states

        def updated(scheduled: Any) -> Any:
            for name in scheduled.finished_req_ids:
                self._ends.pop(name, None)
                self._texts.pop(name, None)
                if self._steps.pop(name, None) is not None:
                    self.guards.forget(name)
            return update(scheduled)

        self.runner._update_states = updated

    def _judge(self, seen: Pass) -> list[int]:
        """Judge the newest token of each row; the rows that are to be given no further token of their own."""
        begun, due = [], []
        for row, name in enumerate(seen.names):
            if not seen.whole[row]:
                continue
            if name not in self._steps:  # the prompt's last token: the answer begins
                self.guards.open(name)
                self._steps[name] = 0
                begun.append(row)
            elif name not in self._ends and self._steps[name] < self.guards.last_step:
                due.append(row)
        if begun and self.guards.has_prompt:
            self._judge_prompts(*_chosen(seen, begun))
        if due:
            names, states = _chosen(seen, due)
            looked = self.guards.take(names, states).tolist()
            for name, told in zip(names, looked, strict=True):
                self._steps[name] += 1
                if told:
                    self._texts.pop(name, None)
                    if self.block and self.guards.stopped_at(name):
                        self._ends[name] = self._steps[name] + 1
        return [row for row, name in enumerate(seen.names) if name in self._ends and not self._is_structured(name)]

    def _judge_prompts(self, names: list[str], states: torch.Tensor) -> None:
        for name, stop in zip(names, self.guards.prompt(names, states).tolist(), strict=True):
            if stop and self.block:
                self._ends[name] = 1

    def _is_structured(self, name: str) -> bool:
        """Whether a grammar follows the tokens, which would not accept an end; the token then stays."""
        return getattr(self.runner.requests[name].sampling_params, "structured_outputs", None) is not None


def _chosen(seen: Pass, rows: list[int]) -> tuple[list[str], torch.Tensor]:
    """The names and the states of some rows."""
    return [seen.names[row] for row in rows], seen.states[torch.tensor(rows, device=seen.states.device)]


def _end_token(runner: Any) -> int:
    """A token that ends an answer and has no text."""
    found = getattr(runner.model_config.hf_text_config, "eos_token_id", None)
    return int((found[0] if isinstance(found, list) else found) or 0)
