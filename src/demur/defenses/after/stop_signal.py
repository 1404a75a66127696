"""A2D's stop signal: how likely a diffusion model finds it, before the first step, that its answer ends at once.

In: harmless prompts to set the limit by, then prompts to judge. Out: a `Blocking`. Source: A2D, Jeung et al. 2025
(arXiv 2509.23286), whose models are aligned to predict the end of sequence at every masked position where harm would
follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from demur.defenses.defense import Blocking, judged_in_batches, require_pairs
from demur.errors import InputError
from demur.guards.calibration import MINIMUM_CALIBRATION
from demur.judges import Verdict
from demur.models import Model
from demur.prompts import as_prompts
from demur.recording import Recording
from demur.recording.generate import encode, pad_left
from demur.recording.recorder import Prompts
from demur.samplers import Sampler
from demur.samplers.masked_diffusion.canvas import Canvas
from demur.samplers.step import forced_tokens


class StopSignal:
    """Blocks a prompt where the end of sequence is likelier at the masked positions than a limit.

    model : the diffusion model that is defended. sampler : whose response is looked at, by default the model's own.
    positions : so many masked positions from the left are averaged, None for all. quantile : of the harmless prompts'
        probabilities that is the limit. batch_size : prompts in a pass.

    limit_ : the limit that `fit` sets. n_calibration_ : prompts behind it.

    One pass of the network a prompt. Of a model that was not aligned in this way the signal tells how short its answer
    will be, and no more.
    """

    name = "stop signal"

    def __init__(
        self,
        model: Model,
        sampler: Sampler | None = None,
        *,
        positions: int | None = None,
        quantile: float = 0.99,
        batch_size: int = 16,
    ) -> None:
        if not model.traits.has_masks:
            raise InputError(f"{model.name}: is {model.family}; the stop signal is read at masks of a diffusion model")
        if not model.eos_token_ids:
            raise InputError(f"{model.name}: names no end-of-sequence token; set eos_token_ids")
        if not 0 < quantile <= 1:
            raise InputError(f"quantile is {quantile}; expected above 0 and at most 1")
        for name, value in (("positions", positions), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; expected at least 1")
        self.model, self.sampler = model, model.default_sampler() if sampler is None else sampler
        self.positions, self.quantile, self.batch_size = positions, quantile, batch_size

    def fit(self, prompts: Prompts) -> StopSignal:
        """Set the limit to the quantile of the probabilities of harmless prompts, at least 20."""
        found = self.probabilities(prompts)
        if len(found) < MINIMUM_CALIBRATION:
            raise InputError(f"{len(found)} harmless prompts to set the limit by; give at least {MINIMUM_CALIBRATION}")
        self.limit_, self.n_calibration_ = float(np.quantile(found, self.quantile)), len(found)
        return self

    def probabilities(self, prompts: Prompts) -> NDArray[np.float64]:
        """The mean probability of an end of sequence at the masked positions of each prompt's empty response.

        prompts : as in `record`; text that is planted in the response (`prefill`, `infill`) stands in it.
        """
        encoded = encode(self.model, as_prompts(prompts), self.sampler)
        found = np.empty(len(encoded))
        for start in range(0, len(encoded), self.batch_size):
            chosen = encoded[start : start + self.batch_size]
            ids, mask = pad_left([one.ids for one in chosen], self.model.pad_token_id)
            forced = forced_tokens(
                [one.forced.tolist() for one in chosen], len(ids), self.sampler.response_length, self.model.device
            )
            found[start : start + len(chosen)] = self._means(ids.to(self.model.device), mask, forced)
        return found

    def __call__(self, prompts: Sequence[str], texts: Sequence[str], recording: Recording | None = None) -> Blocking:
        require_pairs(self.name, prompts, texts)
        if not hasattr(self, "limit_"):
            raise InputError("the stop signal has no limit yet; fit it on harmless prompts")
        return judged_in_batches(self._likelier, prompts, self.batch_size)

    def describe(self) -> dict[str, Any]:
        """What the verdicts depend on, as plain values."""
        return {
            "name": self.name,
            "model": self.model.fingerprint,
            "positions": self.positions,
            "response_length": self.sampler.response_length,
            "quantile": self.quantile,
            "limit": getattr(self, "limit_", None),
            "calibration": getattr(self, "n_calibration_", 0),
        }

    def _likelier(self, prompts: Sequence[str]) -> list[Verdict]:
        return [bool(one > self.limit_) for one in self.probabilities(list(prompts))]

    @torch.no_grad()
    def _means(self, ids: torch.Tensor, mask: torch.Tensor, forced: torch.Tensor) -> NDArray[np.float64]:
        canvas = Canvas(self.model, ids, mask.to(ids.device), forced, [self.model.layer_index("last")])
        canvas.look(torch.arange(len(ids), device=ids.device))
        asked = canvas.masked
        if self.positions is not None:
            asked = asked & (asked.cumsum(dim=1) <= self.positions)
        rows, places = asked.nonzero(as_tuple=True)
        likely = canvas.logits(rows, places).softmax(dim=-1)[:, self.model.eos_token_ids].sum(dim=-1).double()
        sums = torch.zeros(len(ids), dtype=torch.float64, device=ids.device).index_add_(0, rows, likely)
        means: NDArray[np.float64] = (sums / asked.sum(dim=1).clamp(min=1)).cpu().numpy()
        return means
