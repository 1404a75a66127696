"""Prompts as token ids in flat arrays are those that lists of objects would hold, and so are their batches."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from demur.prompts import Prompt, as_prompts
from demur.recording.encoded import Encoded, EncodedPrompts, Plan


def listed(pairs: list[tuple[list[int], list[int]]]) -> list[Encoded]:
    seen: Counter[tuple[tuple[int, ...], ...]] = Counter()
    found = []
    for row, (ids, forced) in enumerate(pairs):
        key = tuple(ids), tuple(forced)
        found.append(Encoded(row, np.array(ids, np.int32), np.array(forced, np.int32), False, seen[key]))
        seen[key] += 1
    return found


def require_same(found: list[Encoded], wanted: list[Encoded]) -> None:
    assert [(one.row, one.ids.tolist(), one.forced.tolist(), one.sample) for one in found] == [
        (one.row, one.ids.tolist(), one.forced.tolist(), one.sample) for one in wanted
    ]


@pytest.fixture(scope="module")
def pairs() -> list[tuple[list[int], list[int]]]:
    rng = random.Random(0)
    kinds = [[rng.randrange(50) for _ in range(rng.randrange(1, 9))] for _ in range(12)]
    # The same numbers on either side of the border of input and forced tokens are two prompts.
    return [([1, 2], [3]), ([1], [2, 3]), *((rng.choice(kinds), rng.choice([[], [7]])) for _ in range(100))]


def test_each_place_holds_its_prompt_and_which_sample_of_it_it_is(pairs: list[tuple[list[int], list[int]]]) -> None:
    encoded = EncodedPrompts(iter(pairs))
    require_same(list(encoded), listed(pairs))
    require_same(encoded[5:9], listed(pairs)[5:9])
    assert all(one.ids.dtype == one.forced.dtype == np.int32 for one in encoded)
    assert max(one.sample for one in encoded) > 1


def test_some_of_them_keep_their_rows_or_are_counted_anew(pairs: list[tuple[list[int], list[int]]]) -> None:
    encoded, places = EncodedPrompts(iter(pairs)), np.array([3, 50, 51, 99])
    wanted = [listed(pairs)[place] for place in places]
    require_same(list(encoded.chosen(places)), wanted)
    require_same(list(encoded.chosen(places, anew=True)), [replace(one, row=row) for row, one in enumerate(wanted)])
    require_same(list(encoded.chosen(places).chosen(np.array([1, 3]))), [wanted[1], wanted[3]])
    assert len(encoded.chosen(places[:0])) == len(Plan(encoded.chosen(places[:0]), 4)) == 0


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_a_plan_is_longest_first_and_its_batches_are_made_when_read(
    pairs: list[tuple[list[int], list[int]]], size: int
) -> None:
    ordered = sorted(listed(pairs), key=lambda one: (-len(one.ids), one.row))
    for encoded in (EncodedPrompts(iter(pairs)), listed(pairs)):
        plan = Plan(encoded, size)
        batches = list(plan)
        assert len(plan) == len(batches) and {len(batch) for batch in batches[:-1]} <= {size}
        require_same([one for batch in batches for one in batch], ordered)
        require_same(plan[-1], batches[-1])
        chosen = range(0, len(plan), 3)
        assert plan.rows_of(chosen).tolist() == sorted(one.row for number in chosen for one in batches[number])


def test_a_prompt_that_is_checked_again_is_not_held_twice() -> None:
    checked = as_prompts([{"prompt": f"tea {n}", "label": "harm" + "less"} for n in range(3)])
    assert all(one is other for one, other in zip(as_prompts(checked), checked, strict=True))
    assert len({id(one.label) for one in checked}) == 1
    given = Prompt("a", token_ids=(1.0, 2.0))  # type: ignore[arg-type]
    assert [type(token) for token in as_prompts([given])[0].token_ids or ()] == [int, int]
