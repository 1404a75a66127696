"""What a wrapper is: a kind of text around a request, put around harmless and harmful requests alike.

In: a `Prompt` with a text. Out: the prompt that an attack of the same form would make, its label unchanged.
A guard that is fitted on wrapped requests of both labels cannot take the wrapper for evidence of harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from random import Random

from demur.attacks import Attack, attacked
from demur.attacks.attack import request_of
from demur.prompts import Prompt

PREFIX = "wrapped-"
Writer = Callable[[str, Random], str]


@dataclass(frozen=True)
class Wrapper:
    """A kind of text around a request.

    kind : its name; family : the group of kinds it belongs to.
    write : makes the text of a request and a random generator, which chooses among wordings.
    resembles : published attacks (names of `demur.hardening.ATTACK_NAMES`) that go about it in a similar way.
    legible : False where the request is written in another form, such as a code, and cannot be read off the text.
    """

    kind: str
    family: str
    write: Writer
    resembles: tuple[str, ...] = ()
    legible: bool = True

    def attack(self, seed: int = 0) -> Attack:
        """The wrapper in the form of an attack; the wording depends on `seed`, the kind and the prompt's id alone."""

        def wrapped(prompt: Prompt) -> Prompt:
            random = Random(f"{seed}/{self.kind}/{prompt.id}")
            return attacked(prompt, PREFIX + self.kind, text=self.write(request_of(prompt), random))

        return wrapped


def fill(template: str, random: Random, request: str, slots: Mapping[str, Sequence[str]] | None = None) -> str:
    """`template` with its slots chosen by `random`, and then the request for "{request}" (never read as a template).

    A slot that occurs several times takes a choice twice only after all choices are used.
    """
    for name, choices in (slots or {}).items():
        order = cycle(random.sample(choices, len(choices)))
        while "{" + name + "}" in template:
            template = template.replace("{" + name + "}", next(order), 1)
    return template.replace("{request}", request)


def one_each(random: Random, slots: Mapping[str, Sequence[str]]) -> dict[str, tuple[str]]:
    """Slots of one choice each, so that a name stays the same through a text; "other" never repeats "name"."""
    chosen = {name: random.choice(choices) for name, choices in slots.items()}
    if "name" in chosen and "other" in chosen:
        chosen["name"], chosen["other"] = random.sample(slots["name"], 2)
    return {name: (choice,) for name, choice in chosen.items()}


def topic(request: str, words: int = 12) -> str:
    """The beginning of a request as a topic: its first words, without the mark at the end and the capital letter."""
    short = " ".join(request.split()[:words]).rstrip(".?!:,;")
    return short[:1].lower() + short[1:]
