"""What an attack is: a function from a prompt to the prompt that attacks.

In: a `Prompt` with a text. Out: another one, of the same label, that knows the original request as its goal.
What an attack says is the business of the modules beside this one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from demur.errors import InputError
from demur.prompts import Prompt

Attack = Callable[[Prompt], Prompt]


def request_of(prompt: Prompt) -> str:
    """The text that an attack wraps; `InputError` for a prompt of token ids, which has none."""
    if prompt.prompt is None:
        raise InputError(
            f"prompt {prompt.id!r}: is given as token ids, which an attack cannot reword; give its text in 'prompt'"
        )
    return prompt.prompt


def attacked(prompt: Prompt, name: str, *, text: str | None = None, infill: str | None = None) -> Prompt:
    """`prompt` as the attack `name` leaves it: the label stays, the id gets the name as a suffix.

    text : the new user message, by default the old one. infill : template of the response.
    The goal is the original request. A prompt that is attacked a second time is named after both.
    """
    request = request_of(prompt)
    if infill is not None and (prompt.prefill is not None or prompt.infill is not None):
        raise InputError(
            f"prompt {prompt.id!r}: forces a part of its response already, and {name} forces a template; "
            f"leave out its 'prefill' or 'infill'"
        )
    return replace(
        prompt,
        id=f"{prompt.id}-{name}",
        prompt=request if text is None else text,
        attack=name if prompt.attack is None else f"{prompt.attack}+{name}",
        goal=request if prompt.goal is None else prompt.goal,
        infill=prompt.infill if infill is None else infill,
    )
