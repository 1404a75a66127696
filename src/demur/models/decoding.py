"""Token ids of a response as text, in which the marks of a thought survive.

In: a tokenizer and token ids. Out: text without special tokens, but for those that say what is thought and what is
answer; where a tokenizer has them as special tokens, plain decoding would join the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

from demur.thought import MARKS, thought_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def decoded(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    """The text of `tokens`, special tokens left out but for the marks of a thought."""
    marks = _special_marks(tokenizer)
    if not any(token in marks for token in tokens):
        return str(tokenizer.decode(list(tokens), skip_special_tokens=True))
    pieces = [
        marks[token] if token is not None else str(tokenizer.decode(list(run), skip_special_tokens=True))
        for token, group in groupby(tokens, lambda one: one if one in marks else None)
        for run in ([[one] for one in group] if token is not None else [list(group)])
    ]
    return "".join(pieces)


@lru_cache(maxsize=16)
def _special_marks(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The special tokens of a tokenizer that are marks of a thought, by id."""
    known = tokenizer.added_tokens_decoder
    special = set(tokenizer.all_special_ids)
    return {
        number: token.content
        for number, token in known.items()
        if token.content in MARKS and (token.special or number in special)
    }


def thought_tokens(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int], opening: str = "") -> list[bool]:
    """For each token of a response whether it belongs to the thought rather than to the answer."""
    texts = [str(tokenizer.decode([token])) for token in tokens]
    spans = thought_spans(opening + "".join(texts))
    place, found = len(opening), []
    for text in texts:
        found.append(any(start <= place < end for start, end in spans))
        place += len(text)
    return found
