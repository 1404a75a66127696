"""Judges by the names that the command line gives them, and the local model that answers a judge's questions.

In: "complies", "complies:N", "chat:MODEL" or an address. Out: a `Judge`. What a judge is, and how an answer is
read, is the business of `demur.judges`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from demur.errors import InputError
from demur.judges import ChatJudge, CompliesJudge, HTTPAsker, Judge
from demur.models import Model
from demur.prompts import Prompt
from demur.recording.generate import batches, encode
from demur.samplers import Sampler

ANSWER_LENGTH = 8
"""Tokens of an answer: one word, and room to spell it."""


class ModelAsker:
    """Asks a local model, greedily, with its own sampler; an `Asker` for `ChatJudge`."""

    def __init__(self, model: Model, *, batch_size: int = 16) -> None:
        self.model, self.batch_size = model, batch_size
        self.sampler: Sampler = model.default_sampler(**_answer_sizes(model))

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def identity(self) -> str:
        return f"{self.model.fingerprint}, {self.sampler!r}"

    def __call__(self, questions: Sequence[str]) -> list[str]:
        prompts = [Prompt(f"judge-{place}", question) for place, question in enumerate(questions)]
        encoded = encode(self.model, prompts, self.sampler)
        answers = [""] * len(prompts)
        layers, ids = [self.model.layer_count], [prompt.id for prompt in prompts]
        for batch in batches(self.model, encoded, self.sampler, layers, self.batch_size, ids):
            for row, text in zip(batch.rows, batch.texts or [], strict=True):
                answers[row] = text
        return answers


def _answer_sizes(model: Model) -> dict[str, int]:
    if model.family == "masked-diffusion":
        return {"steps": ANSWER_LENGTH, "response_length": ANSWER_LENGTH}
    # The canvas of a uniform diffusion model has the length it was trained with.
    return {"steps": ANSWER_LENGTH} if model.family == "autoregressive" else {}


def judge_of(
    name: str,
    load: Callable[[str], Model],
    *,
    address_model: str | None = None,
    api_key_env: str | None = None,
    cache: Path | None = None,
) -> Judge:
    """The judge that `name` stands for.

    name : "complies", "complies:N" for the first N words only, "chat:MODEL" for a model that `load` loads, or the
        address of an OpenAI-compatible server, where `address_model` is asked with the key in `api_key_env`.
    cache : file that keeps a chat judge's verdicts.
    """
    kind, _, rest = name.partition(":")
    if kind == "complies" and (not rest or rest.isdigit()):
        return CompliesJudge(int(rest) if rest else None)
    if kind == "chat" and rest:
        return ChatJudge(ModelAsker(load(rest)), cache=cache)
    if kind in ("http", "https"):
        if address_model is None:
            raise InputError(f"judge {name}: which model to ask there is not known; give it by --judge-model")
        return ChatJudge(HTTPAsker(name, address_model, api_key_env), cache=cache)
    raise InputError(f"judge {name!r} is unknown; give complies, complies:N, chat:MODEL or http://ADDRESS")
