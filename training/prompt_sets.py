"""Write the bundled prompt sets: `python training/prompt_sets.py FOLDER`.

Out: the seven files that a study reads, of requests that no training has seen. Anchors and guard sets come from the
split "sets", the test sets from "test".
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from pathlib import Path

from corpus import Request, Split, request
from demur.prompts import Prompt, write_prompts
from world import FORMS, UNSEEN_FORMS, WRAPPERS, Wrapper

SIZES = {
    "anchors_harmless": 120,
    "anchors_harmful": 120,
    "guard_train_harmless": 400,
    "guard_calibration_harmless": 320,
    "test_harmless": 120,
    "test_harmful": 80,
}
PER_ATTACK = 24


def main() -> None:
    folder = Path(sys.argv[1])
    for name, prompts in prompt_sets().items():
        write_prompts(prompts, folder / f"{name}.jsonl")


def prompt_sets() -> dict[str, list[Prompt]]:
    """The seven sets, no text twice in any of them."""
    draws, seen = random.Random(1), set[str]()
    sets = {}
    for name, size in SIZES.items():
        split: Split = "test" if name.startswith("test_") else "sets"
        harmful = name.endswith("harmful")
        requests = distinct(size, lambda split=split, harmful=harmful: request(draws, split, harmful=harmful), seen)
        sets[name] = [as_prompt(f"{name}-{place}", one) for place, one in enumerate(requests)]
    attacks = [one for wrapper in WRAPPERS for one in attacked(draws, "test", wrapper, PER_ATTACK, seen)]
    sets["test_attacks"] = [as_prompt(f"test_attacks-{place}", one) for place, one in enumerate(attacks)]
    return sets


def held_out(split: Split, size: int, seed: int) -> dict[str, list[Prompt]]:
    """Prompts to measure a model by: plain ones in known and unseen forms, wrapped ones, and harmless goals wrapped."""
    draws, seen = random.Random(seed), set[str]()
    kinds: dict[str, list[Request]] = {}
    for label, harmful in (("harmless", False), ("harmful", True)):
        for name, forms in (("known forms", FORMS), ("unseen forms", UNSEEN_FORMS)):
            draw = lambda harmful=harmful, forms=forms: request(draws, split, harmful=harmful, forms=forms)  # noqa: E731
            kinds[f"{label}, {name}"] = distinct(size, draw, seen)
    for wrapper in WRAPPERS:
        kinds[wrapper.name] = attacked(draws, split, wrapper, size // 3, seen)
    trained = [wrapper for wrapper in WRAPPERS if wrapper.safety != "never seen"]
    draw = lambda: request(draws, split, harmful=False, wrapper=draws.choice(trained))  # noqa: E731
    kinds["harmless, wrapped"] = distinct(size // 2, draw, seen)
    return {
        kind: [as_prompt(f"{kind}-{place}", one) for place, one in enumerate(chosen)] for kind, chosen in kinds.items()
    }


def attacked(draws: random.Random, split: Split, wrapper: Wrapper, size: int, seen: set[str]) -> list[Request]:
    """Harmful requests in a wrapper."""
    return distinct(size, lambda: request(draws, split, harmful=True, wrapper=wrapper), seen)


def distinct(size: int, draw: Callable[[], Request], seen: set[str]) -> list[Request]:
    """`size` requests whose texts occur nowhere in `seen`, which they join."""
    chosen: list[Request] = []
    while len(chosen) < size:
        one = draw()
        if one.text not in seen:
            seen.add(one.text)
            chosen.append(one)
    return chosen


def as_prompt(identity: str, asked: Request) -> Prompt:
    """A request as a row of a prompt set."""
    return Prompt(
        id=identity,
        prompt=asked.text,
        label="harmful" if asked.topic.harmful else "harmless",
        attack=asked.wrapper.name if asked.wrapper and asked.topic.harmful else None,
        goal=asked.goal if asked.wrapper else None,
        category=asked.topic.text,
    )


if __name__ == "__main__":
    main()
