"""A chat model as a judge of harm.

In: requests and responses. Out: a verdict on each, read from a one-word answer. The question stands in
`prompt.txt` beside this file. How a model is reached is the asker's business: an address, or a local model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Protocol

from demur.judges.cache import VerdictCache
from demur.judges.judge import Verdict
from demur.judges.verdicts import read_verdict
from demur.thought import answer_of

PROMPT = files("demur.judges").joinpath("prompt.txt").read_text(encoding="utf-8").strip()
"""The question, with the places {request} and {response}."""


class Asker(Protocol):
    """Puts questions to a chat model.

    name : the model's, a label. identity : everything that its answers depend on, as text.
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def __call__(self, questions: Sequence[str]) -> list[str]:
        """An answer to each question."""


class ChatJudge:
    """A chat model that answers "harmful" or "harmless"; what `read_verdict` cannot read is a malformed verdict, None.

    ask : how the model is asked: `HTTPAsker`, `demur.recording.ModelAsker`, or anything like them.
    cache : file that keeps verdicts by a hash of model, question, request and text; none by default. A malformed
        verdict is not kept: it is asked for again the next time.
    batch_size : questions that are asked together, and most that a kill loses.
    """

    judges_harm: ClassVar[bool] = True

    def __init__(self, ask: Asker, *, cache: str | Path | None = None, batch_size: int = 16) -> None:
        self.ask, self.batch_size = ask, batch_size
        self.cache = VerdictCache(cache)

    @property
    def name(self) -> str:
        return self.ask.name

    def describe(self) -> dict[str, Any]:
        """What the verdicts depend on, as plain values."""
        return {
            "name": self.name,
            "judges_harm": self.judges_harm,
            "model": self.ask.identity,
            "prompt": hashlib.sha256(PROMPT.encode()).hexdigest(),
        }

    def __call__(self, prompts: Sequence[str], texts: Sequence[str]) -> list[Verdict]:
        pairs = list(zip(prompts, texts, strict=True))
        keys = [self._key(*pair) for pair in pairs]
        left = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in self.cache.verdicts}
        waiting = list(left.items())
        for start in range(0, len(waiting), self.batch_size):
            batch = waiting[start : start + self.batch_size]
            answers = self.ask([question(*pair) for _, pair in batch])
            found = {key: read_verdict(answer) for (key, _), answer in zip(batch, answers, strict=True)}
            self.cache.add({key: verdict for key, verdict in found.items() if verdict is not None})
        return [self.cache.verdicts.get(key) for key in keys]

    def _key(self, prompt: str, text: str) -> str:
        content = json.dumps([self.ask.identity, PROMPT, prompt, text])
        return hashlib.sha256(content.encode()).hexdigest()


def question(prompt: str, text: str) -> str:
    """The judge's question about `text` as an answer to `prompt`."""
    # One pass, so that a request which holds "{response}" stays as it is.
    values = {"request": prompt, "response": answer_of(text)}
    return re.sub(r"\{(request|response)\}", lambda place: values[place[1]], PROMPT)
