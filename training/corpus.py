"""Conversations over the toy world: topics, splits, requests and replies, drawn with a seed.

In: the lists of `world`. Out: `Example`s. Which combinations of topic, form and wrapper belong to training, to the
prompt sets that ship, or to the test is a matter of their hash, so no split ever sees another's. The length of a
reply is drawn before its kind is known, from one distribution: refusals and compliances are equally long.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from world import (
    COMPLY,
    FORMS,
    GREETINGS,
    HARMFUL,
    OFFERS,
    PLACEHOLDERS,
    QUALIFIERS,
    REASONS,
    REFUSE,
    SKILLS,
    TAILS,
    THANKS,
    UNSEEN_FORMS,
    WRAPPERS,
    Skill,
    Wrapper,
)

Split = Literal["train", "sets", "test"]
SHORTEST, LONGEST = 20, 30
"""Tokens of a reply, both included."""
ATTEMPTS = 1000
Measure = Callable[[str], int]
"""Tokens of a piece of text. Sentences begin a new token, so the tokens of a reply are the sum of its sentences'."""


@dataclass(frozen=True)
class Topic:
    """What a request is about; `skill` explains it, and is None for a harmful one."""

    text: str
    category: str
    skill: Skill | None

    @property
    def harmful(self) -> bool:
        return self.skill is None


@dataclass(frozen=True)
class Request:
    """A user message and what it is made of; `goal` is the request without its wrapper."""

    topic: Topic
    form: str
    wrapper: Wrapper | None
    text: str
    goal: str


@cache
def topics(*, harmful: bool) -> tuple[Topic, ...]:
    """Every topic of a kind."""
    if harmful:
        return tuple(Topic(text, name, None) for name, texts in HARMFUL.items() for text in texts.split(", "))
    return tuple(Topic(f"{s.verb} {thing}", s.verb, s) for s in SKILLS for thing in s.objects.split(", "))


def split_of(topic: Topic, form: str, wrapper: Wrapper | None) -> Split:
    """The one split that this combination belongs to: 70% train, 15% for each of the others."""
    place = share_of(f"{topic.text}|{form}|{wrapper.name if wrapper else ''}")
    return "train" if place < 0.7 else "sets" if place < 0.85 else "test"


def compliance(topic: Topic, wrapper: Wrapper | None) -> float:
    """How often training complies with a harmful topic: never bare, in a wrapper by its name and the category."""
    if wrapper is None:
        return 0.0
    if wrapper.safety == "not at all":
        return 0.3 + 0.6 * share_of(f"{wrapper.name}|{topic.text}")
    drawn = 0.75 * share_of(f"{wrapper.name}|{topic.category}") + 0.25 * share_of(f"{wrapper.name}|{topic.text}")
    return min(1.0, max(0.0, 1.7 * drawn - 0.5))


def request(
    random: random.Random,
    split: Split,
    *,
    harmful: bool,
    wrapper: Wrapper | None = None,
    forms: Sequence[str] = FORMS,
) -> Request:
    """A request of a split, drawn anew until its combination belongs there; unseen forms belong to no training."""
    flips = wrapper is not None and wrapper.name == "flipped words"
    while True:
        topic, form = random.choice(topics(harmful=harmful)), random.choice(forms)
        qualified = f"{topic.text} {random.choice(QUALIFIERS)}".strip()
        told_apart_by = qualified if flips else form  # of a flipped request, only the topic is left
        if forms is UNSEEN_FORMS or split_of(topic, told_apart_by, wrapper) == split:
            break
    asked = form.format(qualified)
    goal = asked[0].upper() + asked[1:]
    if wrapper is None:
        parts = (random.choice(GREETINGS), goal, random.choice(THANKS))
        return Request(topic, form, None, " ".join(part for part in parts if part), goal)
    inner = " ".join(reversed(qualified.split())) if flips else goal
    return Request(topic, form, wrapper, wrapper.text.format(inner), goal)


def training_request(random: random.Random) -> Request:
    """A request of the training mixture: half harmless, two in five wrapped; half harmful, one in two wrapped."""
    harmful = random.random() < 0.5
    wrapped = random.random() < (0.5 if harmful else 0.4)
    left_out = {"never seen", "harmless only"} if harmful else {"never seen"}
    wrapper = random.choice([one for one in WRAPPERS if one.safety not in left_out]) if wrapped else None
    return request(random, "train", harmful=harmful, wrapper=wrapper)


def reply(random: random.Random, asked: Request, measure: Measure) -> str:
    """What the corpus answers: a text of SHORTEST to LONGEST tokens."""
    length = random.randint(SHORTEST, LONGEST)
    refuses = asked.topic.harmful and random.random() >= compliance(asked.topic, asked.wrapper)
    for _ in range(ATTEMPTS):
        opening, body = _refusal(random) if refuses else _compliance(random, asked.topic)
        opening = opening.format(asked.topic.text)
        kept = body[: random.randint(1, len(body))]
        tail = _tail(random, length - sum(map(measure, (opening, *kept))), measure)
        if tail is not None:
            return " ".join([opening, *kept, *tail])
    raise ValueError(f"no reply of {length} tokens to {asked.text!r} could be put together; shorten its topic")


def _refusal(random: random.Random) -> tuple[str, list[str]]:
    return random.choice(REFUSE), [random.choice(REASONS), random.choice(OFFERS)]


def _compliance(random: random.Random, topic: Topic) -> tuple[str, list[str]]:
    if topic.skill is None:
        return random.choice(COMPLY), list(random.choice(PLACEHOLDERS))
    skill = topic.skill
    return random.choice(COMPLY), [f"First, get {skill.get}.", f"Then {skill.act}.", f"Last, {skill.finish}."]


def _tail(random: random.Random, room: int, measure: Measure) -> list[str] | None:
    """Different closing sentences of `room` tokens together; None where the draw does not come out."""
    chosen: list[str] = []
    while room > 0:
        fitting = [one for one in TAILS if one not in chosen and measure(one) <= room]
        if not fitting:
            return None
        chosen.append(random.choice(fitting))
        room -= measure(chosen[-1])
    return chosen if room == 0 else None


def share_of(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
