"""The attacks by name: a new one is a function and a line here, or in a plugin `@ATTACKS.register(name)`."""

from __future__ import annotations

from collections.abc import Iterable

from demur.attacks.attack import Attack
from demur.attacks.flipping import (
    flip_characters_in_sentence,
    flip_characters_in_word,
    flip_fool_model,
    flip_word_order,
)
from demur.attacks.infilling import dija, pad
from demur.attacks.wording import base64_encoding, prefix_injection, refusal_suppression
from demur.plugins import Registry
from demur.prompts import Prompt

ATTACKS: Registry[Attack] = Registry(
    "attack",
    {
        "refusal-suppression": refusal_suppression,
        "prefix-injection": prefix_injection,
        "base64": base64_encoding,
        "flip-word-order": flip_word_order,
        "flip-characters-in-word": flip_characters_in_word,
        "flip-characters-in-sentence": flip_characters_in_sentence,
        "flip-fool-model": flip_fool_model,
        "dija": dija,
        "pad": pad,
    },
)


def attack_prompts(attack: str | Attack, prompts: Iterable[Prompt]) -> list[Prompt]:
    """Every prompt as an attack leaves it: a name in `ATTACKS` or of a plugin, or a function.

    Raises `InputError` for a name that is unknown.
    """
    found = ATTACKS.find(attack) if isinstance(attack, str) else attack
    return [found(prompt) for prompt in prompts]
