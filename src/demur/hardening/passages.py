"""Passages of everyday text: e-mails, articles, notes, minutes, letters, reviews, stories, manuals and talks.

In: a random generator. Out: one passage or several, with the names, towns, days and numbers filled in. They are the
long harmless surroundings in which some wrappers put a request, whatever its label.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from random import Random

DATA = Path(__file__).parent / "data"

NAMES = tuple(
    "Ada Amir Anneke Bruno Chiara Dagny Emeka Farida Goran Hanne Ines Jiro Kofi Lale Mateo Nadia Olu Petra Quentin "
    "Rosa Sanne Tomas Uma Vigdis Wanda Yusuf Zofia".split()
)
TOWNS = tuple(
    "Alderbrook Brunnau Casteldoro Dunmere Eskilby Fontvieille Grauheim Hollinside Isenfeld Jasmund Korsvik Lindry "
    "Marenberg Nordhallen Oakhythe Pellworth Rivarosa Sandvoort Tarnwick Uferstadt Vallombra Westerlee".split()
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def filled(template: str, random: Random) -> str:
    """`template` with {name}, {town}, {town2}, {day} and {n} chosen by `random`."""
    town, other = random.sample(TOWNS, 2)
    return template.format(
        name=random.choice(NAMES), town=town, town2=other, day=random.choice(DAYS), n=random.randint(12, 96)
    )


@cache
def passage_templates() -> dict[str, tuple[str, ...]]:
    """The passages as they are stored, by genre."""
    genres: dict[str, list[str]] = {}
    for line in (DATA / "passages.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        genres.setdefault(row["genre"], []).append(row["text"])
    return {genre: tuple(texts) for genre, texts in genres.items()}


def passages(random: Random, count: int) -> list[str]:
    """`count` different passages, all of one genre as far as it has so many, filled in."""
    genres = passage_templates()
    chosen = genres[random.choice(sorted(genres))]
    if count > len(chosen):
        chosen = tuple(text for genre in sorted(genres) for text in genres[genre])
    return [filled(text, random) for text in random.sample(chosen, count)]
