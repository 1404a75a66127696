"""The tokenizer of the pair: byte-level BPE over the toy corpus, with a chat template of three roles.

In: texts. Out: a transformers tokenizer. Any text can be written with it; words of the toy world are one token each.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PAD, END, MASK, SYSTEM, USER, ASSISTANT = SPECIAL = [
    "<|pad|>",
    "<|end|>",
    "<|mask|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
]
VOCABULARY = 1280
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content.strip() }}"
    "{% if message.role == 'assistant' %}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of `VOCABULARY` entries for these texts."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, mask_token=MASK, padding_side="left"
    )
    wrapped.add_special_tokens({"additional_special_tokens": [SYSTEM, USER, ASSISTANT]})
    wrapped.chat_template = TEMPLATE
    return wrapped
