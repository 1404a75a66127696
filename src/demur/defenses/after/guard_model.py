"""Guard models: a classifier in the shape of a chat model reads a request and its answer.

In: prompts and texts. Out: a `Blocking`, read from the first word of the guard's answer: "safe" and "unsafe" (Llama
Guard, arXiv 2312.06674), the same or "controversial" behind "Safety:" (Qwen3Guard), or "no" and "yes" (ShieldGemma).
The guard's own chat template states its policy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from demur.defenses.defense import Blocking, judged_in_batches, require_pairs
from demur.errors import InputError
from demur.judges import Verdict, read_verdict
from demur.judges.verdicts import WORDS as VERDICT_WORDS
from demur.models import Model, load
from demur.prompts import Prompt
from demur.recording import ModelAsker, Recording
from demur.thought import answer_of

WORDS = {**VERDICT_WORDS, "controversial": True}
_PROBE = ("first probe", "second probe")


class GuardModel:
    """Blocks a generation that a guard model calls unsafe.

    model : a Hub id or checkpoint folder, such as ``meta-llama/Llama-Guard-3-8B``, or a loaded model.
    words : the words of a verdict, in lower case, and whether each blocks; see `demur.judges.read_verdict`. An answer
        without one is no verdict.
    template_arguments : further arguments that the guard's chat template takes.
    batch_size : generations that are judged together; their time is shared evenly.
    Raises `InputError` for a model whose template does not render a user and an assistant turn.
    """

    def __init__(
        self,
        model: Model | str | Path,
        *,
        words: Mapping[str, bool] = WORDS,
        template_arguments: Mapping[str, Any] | None = None,
        batch_size: int = 16,
    ) -> None:
        self.model = model if isinstance(model, Model) else load(str(model))
        self.words, self.template_arguments = dict(words), dict(template_arguments or {})
        self.batch_size = batch_size
        self.ask = ModelAsker(self.model, batch_size=batch_size)
        self.in_parts = self._needs_parts()

    @property
    def name(self) -> str:
        return f"guard model {self.model.name}"

    def __call__(self, prompts: Sequence[str], texts: Sequence[str], recording: Recording | None = None) -> Blocking:
        require_pairs(self.name, prompts, texts)
        return judged_in_batches(self._judge, list(zip(prompts, texts, strict=True)), self.batch_size)

    def describe(self) -> dict[str, Any]:
        """What the verdicts depend on, as plain values."""
        return {
            "name": self.name,
            "model": self.ask.identity,
            "words": self.words,
            "template_arguments": self.template_arguments,
        }

    def _judge(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        rendered = [self._render(*pair, in_parts=self.in_parts, tokenize=True)["input_ids"] for pair in pairs]
        prompts = [Prompt(f"generation-{place}", token_ids=tuple(ids)) for place, ids in enumerate(rendered)]
        return [read_verdict(answer, self.words) for answer in self.ask.answers(prompts)]

    def _needs_parts(self) -> bool:
        """Whether the template takes a turn as a list of parts, as multimodal ones do, and not as a text."""
        if self.model.tokenizer is None or not self.model.tokenizer.chat_template:
            raise InputError(f"{self.model.name}: has no chat template, so it is no chat guard; give a guard model")
        from jinja2.exceptions import TemplateError

        for in_parts in (False, True):
            try:
                text = self._render(*_PROBE, in_parts=in_parts, tokenize=False)
            except (TemplateError, TypeError):
                continue
            if all(turn in text for turn in _PROBE) and "'type'" not in text:
                return in_parts
        raise InputError(
            f"{self.model.name}: its chat template does not render a user and an assistant turn; "
            f"give what it asks for in template_arguments, or another guard model"
        )

    def _render(self, prompt: str, text: str, *, in_parts: bool, tokenize: bool) -> Any:
        turns = [("user", prompt), ("assistant", answer_of(text))]
        messages = [{"role": r, "content": [{"type": "text", "text": t}] if in_parts else t} for r, t in turns]
        assert self.model.tokenizer is not None  # checked at the start
        options = {"add_generation_prompt": True, "tokenize": tokenize, "return_dict": tokenize}
        return self.model.tokenizer.apply_chat_template(messages, **options, **self.template_arguments)
