"""A local model that answers questions, by the same loop that records.

In: questions, or ready prompts. Out: the text of an answer to each, greedy and short. What an answer means is left
to whoever asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from demur.models import Model
from demur.prompts import Prompt
from demur.recording.engine import Engine
from demur.recording.generate import batches, encode
from demur.samplers import Sampler
from demur.thought import answer_of

ANSWER_LENGTH = 8
"""Tokens of an answer: one word, and room to spell it."""


class ModelAsker:
    """Asks a local model, greedily, with its own sampler; an `Asker` for `ChatJudge`."""

    def __init__(self, model: Model, *, batch_size: int = 16, engine: Engine | None = None) -> None:
        self.model, self.batch_size, self.engine = model, batch_size, engine
        self.sampler: Sampler = model.default_sampler(**_answer_sizes(model))

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def identity(self) -> str:
        return f"{self.model.fingerprint}, {self.sampler!r}"

    def __call__(self, questions: Sequence[str]) -> list[str]:
        return self.answers([Prompt(f"judge-{place}", question) for place, question in enumerate(questions)])

    def answers(self, prompts: Sequence[Prompt]) -> list[str]:
        """The answer to each prompt, which may be given as token ids."""
        encoded = encode(self.model, prompts, self.sampler)
        answers = [""] * len(prompts)
        layers, ids = [self.model.layer_count], [prompt.id for prompt in prompts]
        generated = batches if self.engine is None else self.engine.batches
        for batch in generated(self.model, encoded, self.sampler, layers, self.batch_size, ids):
            for row, text in zip(batch.rows, batch.texts or [], strict=True):
                answers[row] = answer_of(text)
        return answers


def _answer_sizes(model: Model) -> dict[str, int]:
    if model.traits.sized:
        return {"steps": ANSWER_LENGTH, "response_length": ANSWER_LENGTH}
    # The canvas of a uniform diffusion model has the length it was trained with.
    return {"steps": ANSWER_LENGTH} if model.traits.left_to_right else {}
