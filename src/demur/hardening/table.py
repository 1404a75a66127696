"""The wrappers by name, their use on prompt sets, and which published attacks they resemble.

In: prompts. Out: the same prompts inside wrappers, harmless and harmful ones alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from demur.errors import InputError
from demur.hardening import contexts, encodings, fiction, formats, noise, rules, shots
from demur.hardening.wrapper import PREFIX, Wrapper
from demur.prompts import Prompt

_ALL = (rules, formats, fiction, shots, encodings, noise, contexts)
WRAPPERS: dict[str, Wrapper] = {wrapper.kind: wrapper for module in _ALL for wrapper in module.WRAPPERS}

# other names under which an attack that a wrapper resembles is known in prompt files
ATTACK_NAMES: dict[str, str] = {
    "random-search": "random-search",
    "prompt-with-random-search": "random-search",
    "adaptive-attacks": "random-search",
    "refusal-suppression": "refusal-suppression",
    "prefix-injection": "prefix-injection",
    "style-injection": "style-injection",
    "gcg": "gcg",
    "autodan": "jbc",
    "jbc": "jbc",
    "jailbreakchat": "jbc",
    "aim": "jbc",
    "dan": "jbc",
    "evil-confidant": "jbc",
    "pair": "pair",
    "tap": "pair",
    "pap": "pap",
    "wildjailbreak": "wildjailbreak",
    "base64": "base64",
    "rot13": "rot13",
    "leetspeak": "leetspeak",
    "cipher": "cipher",
    "flip": "flip",
    "flipattack": "flip",
    "flip-word-order": "flip",
    "flip-characters-in-word": "flip",
    "flip-characters-in-sentence": "flip",
    "flip-fool-model": "flip",
    "few-shot": "few-shot",
    "many-shot": "many-shot",
    "payload-splitting": "payload-splitting",
    "translation": "translation",
    "deep-inception": "deep-inception",
    "deepinception": "deep-inception",
    "code-completion": "code-completion",
    "codeattack": "code-completion",
    "past-tense": "past-tense",
    "crescendo": "crescendo",
    "context-overflow": "context-overflow",
    "system-look-alike": "system-look-alike",
}


def wrap(
    prompts: Iterable[Prompt],
    kinds: Sequence[str] | None = None,
    seed: int = 0,
    *,
    each: int | None = None,
) -> list[Prompt]:
    """The prompts inside wrappers; labels stay, and the group of a prompt becomes "wrapped-KIND".

    kinds : names of `WRAPPERS`, by default all. seed : chooses the wordings.
    each : how many kinds a prompt is put into, by default every one. They are dealt out in turn among the prompts of a
        label, so that every kind gets its share of harmless and of harmful ones.
    Raises `InputError` for an unknown kind, a count that is not possible and a prompt without text.
    """
    chosen = _known(list(WRAPPERS) if kinds is None else list(kinds))
    count = len(chosen) if each is None else each
    if not 1 <= count <= len(chosen):
        raise InputError(
            f"each = {count}: a prompt can be put into 1 to {len(chosen)} of the kinds; give such a number"
        )
    attacks = [wrapper.attack(seed) for wrapper in chosen]
    dealt: dict[str | None, int] = {}
    made = []
    for prompt in prompts:
        start = dealt.get(prompt.label, 0)
        made += [attacks[(start + place) % len(attacks)](prompt) for place in range(count)]
        dealt[prompt.label] = start + count
    return made


def _known(kinds: list[str]) -> list[Wrapper]:
    unknown = [kind for kind in kinds if kind not in WRAPPERS]
    if unknown or not kinds:
        found = f"wrapper kind {unknown[0]!r} is unknown" if unknown else "no wrapper kind is given"
        raise InputError(f"{found}; give some of {', '.join(WRAPPERS)}")
    return [WRAPPERS[kind] for kind in kinds]


def wrapper_kind(prompt: Prompt) -> str | None:
    """The kind of wrapper that a prompt is in, the outermost one; None where it is in none."""
    name = (prompt.attack or "").split("+")[-1]
    return name.removeprefix(PREFIX) if name.startswith(PREFIX) else None


def resembling(attack: str) -> tuple[str, ...] | None:
    """The wrapper kinds that go about it as the attack does; None for an attack that is not in `ATTACK_NAMES`.

    Upper case and blanks or underscores in the name make no difference.
    """
    name = ATTACK_NAMES.get("-".join(attack.lower().replace("_", " ").replace("-", " ").split()))
    if name is None:
        return None
    return tuple(kind for kind, wrapper in WRAPPERS.items() if name in wrapper.resembles)
