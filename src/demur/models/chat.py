"""How a user message becomes token ids.

In: a tokenizer and a message. Out: token ids, tokenized once, ready for the response to follow. Which of
three ways is taken (the model's template, the template with the system prompt folded into the user turn,
a plain format) is found once per tokenizer and recorded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SYSTEM_PROMPT = "You are a helpful assistant"
PLAIN_FORMAT = "{system}\n\nUser: {prompt}\nAssistant:"


@dataclass(frozen=True)
class ChatFormat:
    """The chat format of a model.

    kind : "template" (the model's own), "plain" (it has none) or "none" (no tokenizer).
    system : the system prompt; folded : it stands at the head of the user turn, because the template
        has no system role. template_hash : sha256 of the template or of the plain format.
    """

    kind: Literal["template", "plain", "none"]
    system: str = SYSTEM_PROMPT
    folded: bool = False
    template_hash: str = ""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase | None, system: str = SYSTEM_PROMPT) -> ChatFormat:
        """The format that a tokenizer asks for."""
        if tokenizer is None:
            return cls("none", system)
        template = tokenizer.chat_template
        if not template:
            return cls("plain", system, template_hash=_sha256(PLAIN_FORMAT))
        return cls("template", system, not _has_system_role(tokenizer, system), _sha256(str(template)))

    def encode(self, tokenizer: PreTrainedTokenizerBase, prompt: str) -> list[int]:
        """Token ids of one user message, beginning-of-sequence (where the model has one) exactly once."""
        if self.kind == "plain":
            text = PLAIN_FORMAT.format(system=self.system, prompt=prompt)
            return list(tokenizer(text)["input_ids"])
        messages = _messages(self.system, prompt, folded=self.folded)
        encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
        return list(encoded["input_ids"])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a manifest."""
        return asdict(self)


def decode_response(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], eos_token_ids: Sequence[int]) -> str:
    """Text of a response's token ids up to the first end-of-sequence, special tokens left out."""
    ends = next((place for place, token in enumerate(tokens) if token in eos_token_ids), len(tokens))
    return str(tokenizer.decode(list(tokens[:ends]), skip_special_tokens=True))


def _messages(system: str, prompt: str, *, folded: bool) -> list[dict[str, str]]:
    if folded:
        return [{"role": "user", "content": f"{system}\n\n{prompt}"}]
    return [{"role": "system", "content": system}, {"role": "user", "content": prompt}]


def _has_system_role(tokenizer: PreTrainedTokenizerBase, system: str) -> bool:
    """Whether a system message reaches the rendered text; templates without the role raise or drop it."""
    from jinja2.exceptions import TemplateError

    try:
        text = tokenizer.apply_chat_template(_messages(system, "hello", folded=False), tokenize=False)
    except TemplateError:
        return False
    return system in str(text)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
