"""Published data sets of the Hub whose columns are not those of a prompt set.

In: a name such as ``hub:allenai/wildjailbreak:eval``. Out: raw rows of prompt fields. A new data set is a function
from its row to a prompt's fields, and an entry of `HUB_SETS`. Reading needs the `hub` extra and a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from demur.errors import InputError
from demur.prompts import hub_rows

Row = Mapping[str, Any]


@dataclass(frozen=True)
class HubSet:
    """How a data set is asked for, and what its rows say.

    parts : what may be asked for, the default first. request : the arguments of `load_dataset` for a part.
    columns : that a row must have. fields : a prompt's fields from the row, its number from 0 and the part.
    """

    parts: tuple[str, ...]
    request: Callable[[str], tuple[tuple[str, ...], dict[str, Any]]]
    columns: tuple[str, ...]
    fields: Callable[[Row, int, str], dict[str, Any]] = field(repr=False)


def hub_prompts(name: str) -> Iterator[tuple[str, Any]]:
    """Pairs of a place and the prompt fields of every row of ``hub:OWNER/NAME[:PART]``."""
    repository, _, part = name.removeprefix("hub:").partition(":")
    known = {title.lower(): one for title, one in HUB_SETS.items()}
    if repository.lower() not in known:
        raise InputError(
            f"{name}: the columns of this data set are not known; expected {' or '.join(HUB_SETS)}. "
            f"One with the columns of a prompt file is read with read_prompts"
        )
    found = known[repository.lower()]
    part = part or found.parts[0]
    if part not in found.parts:
        raise InputError(f"{name}: has no part {part!r}; give one of {', '.join(found.parts)}")
    arguments, options = found.request(part)
    for number, (place, row) in enumerate(hub_rows(name, repository, *arguments, **options)):
        missing = [column for column in found.columns if column not in row]
        if missing:
            raise InputError(f"{name}, {place}: has no column {missing[0]!r}; expected {', '.join(found.columns)}")
        try:
            yield place, found.fields(row, number, part)
        except InputError as error:
            raise InputError(f"{name}, {place}: {error}") from error


WILDJAILBREAK_KINDS = {
    "vanilla_harmful": (False, True),
    "vanilla_benign": (False, False),
    "adversarial_harmful": (True, True),
    "adversarial_benign": (True, False),
}
"""Values of `data_type`: whether the request is adversarial, and whether it is harmful."""


def _wildjailbreak(row: Row, number: int, part: str) -> dict[str, Any]:
    """A vanilla or adversarial request, harmful or benign; only harmful adversarial ones count as an attack."""
    kind = row["data_type"]
    if kind not in WILDJAILBREAK_KINDS:
        raise InputError(f"data_type {kind!r} is none of {', '.join(WILDJAILBREAK_KINDS)}")
    adversarial, harmful = WILDJAILBREAK_KINDS[kind]
    plain = row.get("vanilla") or None
    return {
        "id": f"wildjailbreak-{part}-{number:06d}",
        "prompt": row["adversarial"] if adversarial else plain,
        "label": "harmful" if harmful else "harmless",
        "attack": "WildJailbreak" if adversarial and harmful else None,
        "goal": plain if adversarial else None,
        "category": kind,
    }


def _jbb_behaviors(row: Row, number: int, part: str) -> dict[str, Any]:
    return {
        "id": f"jbb-{number:03d}" if part == "harmful" else f"jbb-benign-{number:03d}",
        "prompt": row["Goal"],
        "label": "harmful" if part == "harmful" else "harmless",
        "category": row["Category"],
    }


HUB_SETS = {
    "allenai/wildjailbreak": HubSet(
        parts=("eval", "train"),
        # Tab-separated files, in which an empty field is an empty text.
        request=lambda part: ((part,), {"split": "train", "delimiter": "\t", "keep_default_na": False}),
        columns=("adversarial", "data_type"),
        fields=_wildjailbreak,
    ),
    "JailbreakBench/JBB-Behaviors": HubSet(
        parts=("harmful", "benign"),
        request=lambda part: (("behaviors",), {"split": part}),
        columns=("Goal", "Category"),
        fields=_jbb_behaviors,
    ),
}
"""WildJailbreak (Jiang et al. 2024, arXiv 2406.18510) and the behaviours of JailbreakBench (arXiv 2404.01318)."""
