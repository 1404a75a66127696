"""Prompts for a check: token ids of many lengths, with and without a beginning that all rows share.

In: a model. Out: rows of token ids. The words are plain English, or words of the vocabulary where the tokenizer does
not know English; a model without a tokenizer gets random ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from demur.models import Model

TEXT = (
    "Early in the morning the baker opens the shop at the corner and puts the first loaves on the shelf. A teacher "
    "buys two rolls, a boy asks for a cake with plums, and an old man reads the paper by the window until it is dark. "
    "Later it begins to rain, so the market on the square is quiet and the woman who sells apples tells a long story "
    "about her brother, his boat and the winter in which the lake was frozen for nine weeks. When the sun comes back, "
    "children run to the river, count the ducks under the bridge and write down what they saw in small blue books. In "
    "the evening the train brings everyone home, lamps are lit, and somebody plays a slow song on a piano."
)
"""What prompts are cut from; harmless, and written for this purpose."""

LEAST_WORDS = 8
SHARED_IDS = 12
"""Length of the shared beginning where there is no tokenizer; with one it is that of the chat format."""


def words_of(model: Model) -> list[str]:
    """Words that the model's tokenizer gives back as they are: those of `TEXT`, or some of its vocabulary."""
    tokenizer = model.tokenizer
    assert tokenizer is not None
    ids = tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    if tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids:
        return TEXT.split()
    known = sorted(word for word in tokenizer.get_vocab() if word.isalpha() and word.islower())
    return known if len(known) >= LEAST_WORDS else TEXT.split()


def taken(words: Sequence[str], start: int, count: int) -> list[str]:
    """`count` words from `start` on, beginning anew at the end."""
    return [words[(start + place) % len(words)] for place in range(count)]


def rows_of(model: Model, counts: Sequence[int], *, shared: bool) -> list[list[int]]:
    """A row of token ids for each of `counts`, a number of words.

    shared : rows are whole prompts in the chat format, which all begin alike; else bare texts that begin differently.
    """
    if model.tokenizer is None:
        return _random_rows(model, counts, shared=shared)
    words = words_of(model)
    texts = [" ".join(taken(words, 5 * place, count)) for place, count in enumerate(counts)]
    if shared:
        return [model.encode(text) for text in texts]
    return [[int(token) for token in model.tokenizer(text)["input_ids"]] for text in texts]


def long_row(model: Model, least: int) -> list[int]:
    """A row of at least `least` token ids that begins as the shared rows of `rows_of` do."""
    count = least
    while len(row := rows_of(model, [count], shared=True)[0]) < least:
        count += least
    return row


def _random_rows(model: Model, counts: Sequence[int], *, shared: bool) -> list[list[int]]:
    special = {*model.eos_token_ids, model.pad_token_id, model.mask_token_id}
    ordinary = np.array([token for token in range(int(model.config.vocab_size)) if token not in special])
    random = np.random.default_rng(0)
    beginning = random.choice(ordinary, SHARED_IDS).tolist()
    rows = [random.choice(ordinary, count + 1).tolist() for count in counts]
    return [beginning + row if shared else row for row in rows]
