"""A perplexity filter: prompts that are stranger than harmless ones are blocked.

In: harmless prompts to set the limit by, then prompts to judge. Out: a `Blocking`. Sources: Jain et al. 2023 (arXiv
2309.00614), whose windows and limit these are, and Alon and Kamfonas 2023 (arXiv 2308.14132).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.defenses.after.token_losses import losses_of
from demur.defenses.defense import Blocking, judged_in_batches, require_pairs
from demur.errors import InputError
from demur.guards.calibration import MINIMUM_CALIBRATION
from demur.judges import Verdict
from demur.models import Model
from demur.recording import Recording


class PerplexityFilter:
    """Blocks a prompt whose perplexity is above a limit; it reads neither the response nor the recording.

    model : the model that is defended. quantile : of the harmless prompts' perplexities that is the limit; 1 takes
        their maximum, as Jain et al. do.
    window : judge a prompt by the strangest run of so many tokens; None by all of it. folds : see `token_losses`.
    batch_size : prompts that are judged together; their time is shared evenly.

    limit_ : the limit that `fit` sets. n_calibration_ : prompts behind it.
    """

    name = "perplexity"

    def __init__(
        self, model: Model, *, quantile: float = 1.0, window: int | None = None, folds: int = 8, batch_size: int = 16
    ) -> None:
        if not 0 < quantile <= 1:
            raise InputError(f"quantile is {quantile}; expected above 0 and at most 1")
        for name, value in (("window", window), ("folds", folds), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}; expected at least 1")
        self.model, self.quantile, self.window, self.folds = model, quantile, window, folds
        self.batch_size = batch_size

    def fit(self, prompts: Sequence[str]) -> PerplexityFilter:
        """Set the limit to the quantile of the perplexities of harmless prompts, at least 20."""
        if isinstance(prompts, str) or len(prompts) < MINIMUM_CALIBRATION:
            count = 1 if isinstance(prompts, str) else len(prompts)
            raise InputError(
                f"{count} harmless prompts to set the limit by; give a list of at least {MINIMUM_CALIBRATION}"
            )
        self.limit_ = float(np.quantile(self.perplexities(prompts), self.quantile))
        self.n_calibration_ = len(prompts)
        return self

    def perplexities(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """The perplexity of each prompt, with windows that of the strangest one; 1 where no token can be predicted."""
        return np.array([self._strangest(one) for one in losses_of(self.model, prompts, self.folds)], dtype=np.float64)

    def __call__(self, prompts: Sequence[str], texts: Sequence[str], recording: Recording | None = None) -> Blocking:
        require_pairs(self.name, prompts, texts)
        if not hasattr(self, "limit_"):
            raise InputError("the perplexity filter has no limit yet; fit it on harmless prompts")
        return judged_in_batches(self._stranger, prompts, self.batch_size)

    def describe(self) -> dict[str, Any]:
        """What the verdicts depend on, as plain values."""
        return {
            "name": self.name,
            "model": self.model.fingerprint,
            "quantile": self.quantile,
            "window": self.window,
            "folds": self.folds,
            "limit": getattr(self, "limit_", None),
            "calibration": getattr(self, "n_calibration_", 0),
        }

    def _stranger(self, prompts: Sequence[str]) -> list[Verdict]:
        return [bool(one > self.limit_) for one in self.perplexities(prompts)]

    def _strangest(self, losses: NDArray[np.float64]) -> float:
        if not len(losses):
            return 1.0
        size = min(self.window or len(losses), len(losses))
        windows = np.lib.stride_tricks.sliding_window_view(losses, size)
        return float(np.exp(windows.mean(axis=1).max()))
