"""What runs inside vLLM's worker while demur records: every token's states are kept, and tokens chosen as demur does.

In: calls of vLLM's `collective_rpc`. Out: states a request. Which requests there are is the recorder's business.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from demur.engines.vllm.environment import require_supported
from demur.engines.vllm.states import RunnerStates
from demur.samplers.autoregressive import draw_tokens

FREE = -1


class RecordingWorker:
    """A worker extension of vLLM (`worker_extension_cls`), so that the recorder may call these methods."""

    def demur_begin(self, layers: list[int]) -> None:
        """Keep the states of these layers from now on."""
        require_supported(self.vllm_config)  # type: ignore[attr-defined]
        self.demur_end()
        self.demur_kept = Kept(self.model_runner, layers)  # type: ignore[attr-defined]

    def demur_end(self) -> None:
        """Keep no states any more."""
        if hasattr(self, "demur_kept"):
            self.demur_kept.close()
            del self.demur_kept

    def demur_collect(self, requests: list[str]) -> list[np.ndarray]:
        """The states of finished requests, float32 ``[tokens, layers, width]`` each; they are kept no longer."""
        return [self.demur_kept.pop(request) for request in requests]


class Kept:
    """The states of every request so far: of the prompt's last token, and then of every token of the answer."""

    def __init__(self, runner: Any, layers: list[int]) -> None:
        self._runner, self._seen = runner, RunnerStates(runner, layers)
        self._states: dict[str, list[torch.Tensor]] = {}
        self._draws: dict[str, torch.Generator] = {}
        self._sample = sample = runner._sample

        def chosen(logits: torch.Tensor, *others: Any, **options: Any) -> Any:
            picks = self._passed(logits)
            output = sample(logits, *others, **options)
            for row, token in picks.items():
                output.sampled_token_ids[row, 0] = token
            return output

        runner._sample = chosen

    def close(self) -> None:
        self._runner._sample = self._sample
        self._seen.close()

    def pop(self, request: str) -> np.ndarray:
        self._draws.pop(request, None)
        return torch.stack(self._states.pop(request)).numpy()

    def _passed(self, logits: torch.Tensor) -> dict[int, int]:
        """Keep the states of a pass; the tokens that demur chooses itself, by row."""
        seen = self._seen.take()
        states, picks = seen.states.cpu(), {}
        for row, name in enumerate(seen.names):
            if not seen.whole[row]:
                continue
            plan = self._runner.requests[name].sampling_params.extra_args["demur"]
            kept = self._states.setdefault(plan["request"], [])
            kept.append(states[row])
            token = self._pick(plan, len(kept) - 1, logits[row])
            if token is not None:
                picks[row] = token
        return picks

    def _pick(self, plan: dict[str, Any], place: int, logits: torch.Tensor) -> int | None:
        """The token at this place of the answer; None for the most likely one, which vLLM takes by itself."""
        forced = plan["forced"]
        wanted = forced[place] if place < len(forced) else FREE
        draw = self._draw(plan) if plan["temperature"] > 0 else None  # one draw a token, forced ones too
        if wanted != FREE:
            return int(wanted)
        if draw is None and not plan["suppressed"]:
            return None
        free = logits.clone()
        free[[one for one in plan["suppressed"] if one < len(free)]] = -torch.inf
        if draw is None:
            return int(free.argmax())
        return int(draw_tokens(free[None], plan["temperature"], draw.to(free.device))[0])

    def _draw(self, plan: dict[str, Any]) -> torch.Tensor:
        request = plan["request"]
        if request not in self._draws:
            self._draws[request] = torch.Generator().manual_seed(plan["seed"])
        return torch.rand(1, generator=self._draws[request], dtype=torch.float64)
