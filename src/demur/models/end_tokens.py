"""Which tokens end an answer, and which one may fill where nothing stands.

In: a network and its tokenizer. Out: token ids that the vocabulary holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from demur.errors import InputError
from demur.models.templates import limited

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def end_tokens(network: Any, tokenizer: PreTrainedTokenizerBase | None) -> list[int]:
    """Every token that generation config, config, tokenizer or chat template end an answer with, together."""
    generation = getattr(network, "generation_config", None)
    text = network.config.get_text_config() if hasattr(network.config, "get_text_config") else network.config
    found = token_ids(
        getattr(generation, "eos_token_id", None),
        getattr(network.config, "eos_token_id", None),
        getattr(text, "eos_token_id", None),
        getattr(tokenizer, "eos_token_id", None),
        turn_end(tokenizer),
    )
    return in_vocabulary(found, vocabulary_size(network))


def pad_token(network: Any, tokenizer: PreTrainedTokenizerBase | None, ends: list[int]) -> int:
    """The first of the checkpoint's fillers that the vocabulary holds, else an end of sequence, else token 0."""
    found = token_ids(
        getattr(getattr(network, "generation_config", None), "pad_token_id", None),
        getattr(network.config, "pad_token_id", None),
        getattr(tokenizer, "pad_token_id", None),
    )
    return in_vocabulary([*found, *ends, 0], vocabulary_size(network))[0]


def turn_end(tokenizer: PreTrainedTokenizerBase | None) -> int | None:
    """The special token that the chat template puts behind an answer; None where it puts none."""
    if tokenizer is None or not isinstance(tokenizer.chat_template, str):
        return None
    answer = "One word."
    messages = [{"role": "user", "content": "Say one word."}, {"role": "assistant", "content": answer}]
    try:
        with limited():
            text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:  # templates raise errors of their own; which of them matters where prompts are made
        return None
    behind = text.rpartition(answer)[2].lstrip() if answer in text else ""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    special = [token for token in {*tokenizer.all_special_tokens, *added} if token and behind.startswith(token)]
    return int(tokenizer.convert_tokens_to_ids(max(special, key=len))) if special else None


def vocabulary_size(network: Any) -> int | None:
    """Rows of the embeddings, or what the config says; None where neither is known."""
    try:
        return int(network.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError, TypeError):
        text = network.config.get_text_config() if hasattr(network.config, "get_text_config") else network.config
        size = getattr(text, "vocab_size", None)
        return size if isinstance(size, int) else None


def in_vocabulary(ids: list[int], size: int | None) -> list[int]:
    """Those ids, once each, that a vocabulary of this size holds."""
    return [one for one in dict.fromkeys(ids) if one >= 0 and (size is None or one < size)]


def token_ids(*values: Any) -> list[int]:
    """Every token id among values that may be None, one id or a list of them."""
    ids: list[int] = []
    for value in values:
        several = value if isinstance(value, list | tuple) else [] if value is None else [value]
        for one in several:
            if isinstance(one, bool) or not isinstance(one, int):
                raise InputError(f"a token id is {one!r}, expected a whole number; get the file again")
            ids.append(one)
    return ids
