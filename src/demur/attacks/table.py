"""The attacks by name: a new one is a function and a line here."""

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
from demur.errors import InputError
from demur.prompts import Prompt

ATTACKS: dict[str, Attack] = {
    "refusal-suppression": refusal_suppression,
    "prefix-injection": prefix_injection,
    "base64": base64_encoding,
    "flip-word-order": flip_word_order,
    "flip-characters-in-word": flip_characters_in_word,
    "flip-characters-in-sentence": flip_characters_in_sentence,
    "flip-fool-model": flip_fool_model,
    "dija": dija,
    "pad": pad,
}


def attack_prompts(name: str, prompts: Iterable[Prompt]) -> list[Prompt]:
    """Every prompt as the attack `name` leaves it; `InputError` for a name that is not in `ATTACKS`."""
    if name not in ATTACKS:
        raise InputError(f"attack {name!r} is unknown; give one of {', '.join(ATTACKS)}")
    return [ATTACKS[name](prompt) for prompt in prompts]
