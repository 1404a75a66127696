"""How a user message becomes token ids.

In: a tokenizer and a message. Out: token ids, tokenized once, ready for the response to follow. Which of the ways is
taken (the model's template with or without a system role, content as text or in parts, a plain format) is found once
per tokenizer by rendering two texts, both of which must come out whole, and is recorded.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from demur.errors import InputError
from demur.models.decoding import decoded
from demur.models.templates import TemplateFault, Turns, render, require_harmless
from demur.thought import opening_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SYSTEM_PROMPT = "You are a helpful assistant"
PLAIN_FORMAT = "{system}\n\nUser: {prompt}\nAssistant:"
_PROBES = (
    "Which of these towns lies by the sea?\nPlease name the River, too.",
    "Tell me a short story of 3 owls. " * 30 + "The end",
)
_RESERVED = ("add_generation_prompt", "chat_template", "conversation", "messages", "tokenize", "return_dict")
_ROLES = {"user": "User", "assistant": "Assistant", "tool": "Tool"}
_MEND = (
    "give what it needs by template_arguments (--template-arg NAME=VALUE), another one by template (--template NAME or "
    "FILE.jinja), or no system prompt by system=None (--no-system)"
)


@dataclass(frozen=True)
class ChatFormat:
    """The chat format of a model.

    kind : "template" (the model's own), "plain" (it has none) or "none" (no tokenizer).
    system : the system prompt, None for none; folded : it stands at the head of the user turn, because the template
        has no system role. template_hash : sha256 of the template or of the plain format.
    parts : content is given as a list of parts. name : of a template among several, "" for the tokenizer's own.
    arguments : further variables of the template. text : of a template that the tokenizer does not have by itself.
    opening : the mark of a thought that the template opens at the beginning of each response, such as "<think>".
    """

    kind: Literal["template", "plain", "none"]
    system: str | None = SYSTEM_PROMPT
    folded: bool = False
    template_hash: str = ""
    parts: bool = False
    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    text: str | None = field(default=None, repr=False)
    opening: str = ""

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerBase | None,
        system: str | None = SYSTEM_PROMPT,
        *,
        template: str | None = None,
        template_arguments: Mapping[str, Any] | None = None,
    ) -> ChatFormat:
        """The format that a tokenizer asks for.

        system : None for no system prompt. template : the name of one of the tokenizer's, or a ``.jinja`` file.
        template_arguments : what the template reads beside the messages, such as ``{"enable_thinking": False}``.
        Raises `InputError` for a template that fails, or that does not pass texts on whole.
        """
        arguments = dict(template_arguments or {})
        if system is not None:
            _require_text(system)
        if tokenizer is None:
            _refuse_options("has no tokenizer files", template, arguments)
            return cls("none", system)
        if not tokenizer.chat_template and (beside := _template_beside(str(tokenizer.name_or_path))):
            tokenizer.chat_template = beside
        if not tokenizer.chat_template and template is None:
            _refuse_options("has no chat template", template, arguments)
            _say_plain(_named(tokenizer))
            return cls("plain", system, template_hash=_sha256(PLAIN_FORMAT))
        text, name = _chosen(tokenizer, template)
        _require_read(text or str(tokenizer.chat_template), arguments)
        content = str(tokenizer.chat_template) if text is None else text
        made = cls("template", system, False, _sha256(content), name=name, arguments=arguments, text=text)
        return made._probed(tokenizer)

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, prompt: str, history: Sequence[Mapping[str, str]] = ()
    ) -> list[int]:
        """Token ids of one user message, beginning-of-sequence (where the model has one) exactly once.

        history : the turns before it; a system message at its head takes the place of the format's own.
        """
        turns = self._turns(prompt, history)
        if self.kind == "plain":
            return _plain_ids(tokenizer, _plain_text(turns))
        text = self._rendered(tokenizer, turns)
        if prompt.strip() not in text:
            raise TemplateFault(f"the chat template leaves out or changes a part of the user message; {_MEND}")
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a manifest; what is at its default is left out, as it was before there was a choice."""
        values: dict[str, Any] = {"kind": self.kind, "system": self.system, "folded": self.folded}
        values["template_hash"] = self.template_hash
        chosen = {"parts": self.parts, "name": self.name, "arguments": dict(self.arguments)}
        return values | {name: value for name, value in chosen.items() if value}

    def _turns(self, prompt: str, history: Sequence[Mapping[str, str]]) -> list[Mapping[str, Any]]:
        """All messages, with the system prompt where this format puts it."""
        turns: list[Mapping[str, Any]] = [*history, {"role": "user", "content": prompt}]
        given = turns.pop(0) if turns[0]["role"] in ("system", "developer") else None
        system = self.system if given is None else given["content"]
        if system is not None:
            if self.folded:
                first = turns[0]
                turns[0] = {**first, "content": f"{system}\n\n{first['content']}"}
            else:
                turns.insert(0, {"role": "system" if given is None else given["role"], "content": system})
        if self.parts:
            turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        return turns

    def _rendered(self, tokenizer: PreTrainedTokenizerBase, turns: Turns) -> str:
        try:
            return render(tokenizer, self.text, self.arguments, turns)
        except TemplateFault as error:
            raise TemplateFault(f"{error}; {_MEND}") from error

    def _probed(self, tokenizer: PreTrainedTokenizerBase) -> ChatFormat:
        """This format in the first way of passing content on that keeps two texts, and the system prompt, whole."""
        ways = [replace(self, folded=folded, parts=parts) for parts in (False, True) for folded in (False, True)]
        if self.system is None:
            ways = [way for way in ways if not way.folded]
        _vetted(tokenizer, self.text, json.dumps(dict(self.arguments), default=str, sort_keys=True), ways)
        faults: list[str] = []
        for way in ways:
            try:
                made = [render(tokenizer, way.text, way.arguments, way._turns(probe, ())) for probe in _PROBES]
            except TemplateFault as error:
                faults.append(str(error))
                continue
            if all(p in text for p, text in zip(_PROBES, made, strict=True)) and all(
                (self.system or "").strip() in text for text in made
            ):
                return replace(way, opening=opening_of(made[0].rpartition(_PROBES[0])[2]))
        fault = faults[-1] if len(faults) == len(ways) else "the chat template does not pass a user message on whole"
        raise TemplateFault(f"{_named(tokenizer)}: {fault}; {_MEND}")


def decode_response(
    tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], eos_token_ids: Sequence[int], opening: str = ""
) -> str:
    """Text of a response's token ids up to the first end-of-sequence.

    Special tokens are left out but for those that set a thought apart from the answer. opening : what the chat
    template has opened already, put in front; see `ChatFormat`.
    """
    ends = next((place for place, token in enumerate(tokens) if token in eos_token_ids), len(tokens))
    return opening + decoded(tokenizer, tokens[:ends])


def _chosen(tokenizer: PreTrainedTokenizerBase, template: str | None) -> tuple[str | None, str]:
    """The text of the template that was asked for, None for the tokenizer's own, and its name."""
    known = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
    if template is None:
        if known and "default" not in known:
            raise InputError(
                f"{_named(tokenizer)}: has several chat templates and no default; choose one of "
                f"{', '.join(sorted(known))} by template=NAME (--template NAME)"
            )
        return None, ""
    if template in known:
        return str(known[template]), template
    path = Path(template)
    if path.suffix == ".jinja" and path.is_file():
        try:
            return path.read_text(encoding="utf-8"), path.name
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{template}: the chat template cannot be read; give a file of UTF-8 text") from error
    names = f"choose one of {', '.join(sorted(known))}, or give" if known else "there are no named ones; give"
    raise InputError(f"{_named(tokenizer)}: has no chat template {template!r}; {names} a .jinja file")


def _require_read(template: str, arguments: Mapping[str, Any]) -> None:
    for name in arguments:
        if name in _RESERVED:
            raise InputError(f"template argument {name!r} is set by demur itself; leave it out")
        if not re.search(rf"\b{re.escape(name)}\b", template):
            raise InputError(f"template argument {name!r} is not read by the chat template; leave it out or correct it")
    try:
        json.dumps(dict(arguments))
    except (TypeError, ValueError) as error:
        raise InputError(f"template arguments: {error}; give values that JSON can hold") from error


def _named(tokenizer: PreTrainedTokenizerBase) -> str:
    return str(tokenizer.name_or_path) or "the tokenizer"


def _refuse_options(why: str, template: str | None, arguments: Mapping[str, Any]) -> None:
    if template is not None or arguments:
        raise InputError(f"the model {why}, so a template or its arguments cannot be used; leave them out")


def _require_text(system: str) -> None:
    try:
        system.encode()
    except UnicodeEncodeError as error:
        raise InputError("the system prompt holds half of a character, which cannot be encoded; correct it") from error


def _plain_text(turns: Turns) -> str:
    """The plain format; of a single message `PLAIN_FORMAT`, its first lines gone where there is no system prompt."""
    lines = [f"{_ROLES[turn['role']]}: {turn['content']}" for turn in turns if turn["role"] in _ROLES]
    system = f"{turns[0]['content']}\n\n" if turns[0]["role"] not in _ROLES else ""
    return system + "\n".join([*lines, "Assistant:"])


def _plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids with what the tokenizer puts in front of a text, and without what it puts behind one."""
    body = list(tokenizer(text, add_special_tokens=False)["input_ids"])
    whole = list(tokenizer(text)["input_ids"])
    for start in range(len(whole) - len(body) + 1):
        if whole[start : start + len(body)] == body:
            return whole[:start] + body
    return whole


def _template_beside(folder: str) -> Any:
    """The template that a processor keeps beside a tokenizer, which transformers' tokenizers do not read."""
    for name in ("chat_template.json", "processor_config.json"):
        path = Path(folder) / name
        if path.is_file():
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError, RecursionError) as error:
                raise InputError(f"{path}: is not valid JSON, so the chat template in it cannot be read") from error
            if isinstance(found, dict) and found.get("chat_template"):
                return found["chat_template"]
    return None


_VETTED: set[str] = set()


def _vetted(tokenizer: PreTrainedTokenizerBase, text: str | None, arguments: str, ways: Sequence[ChatFormat]) -> None:
    """Have a template run in a process of its own once, before it runs in this one."""
    key = _sha256(f"{text or tokenizer.chat_template}\n{arguments}\n{ways[0].system}")
    if key not in _VETTED:
        probes = [way._turns(probe, ()) for way in ways for probe in _PROBES]
        try:
            require_harmless(tokenizer, text, ways[0].arguments, probes)
        except TemplateFault as error:
            raise TemplateFault(f"{_named(tokenizer)}: {error}; {_MEND}") from error
        _VETTED.add(key)


@cache
def _say_plain(name: str) -> None:
    logging.getLogger("demur").warning(
        "%s has no chat template (a base model?): prompts are put into a plain format, 'User: ... Assistant:'; "
        "give a template with --template FILE.jinja (template=)",
        name,
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
