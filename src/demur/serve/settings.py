"""What the operator of a server decides: its limits, and what becomes of a generation that a guard flags.

In: values from the command line or Python. Out: one object that every part of the server reads. What a client may ask
for is in `schema`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal, get_args

from demur.errors import InputError

Hold = Literal["none", "look", "all"]
Mode = Literal["block", "score"]
EngineName = Literal["auto", "continuous", "batches"]


@dataclass(frozen=True)
class Settings:
    """Limits and policy of a server.

    hold : what a client may see before its verdict. "look": a token once a look at it or behind it has passed, "all":
        nothing before the whole answer has passed, "none": everything at once, verdicts come later.
    mode : "block" stops a flagged generation, "score" only reports it, where a request does not say. enforce : no
        request may choose the weaker "score".
    refusal : text that a client gets in place of what was withheld.
    engine : "continuous" is transformers' continuous batching, "batches" demur's own samplers.
    slots : generations that run together. queue : requests that may wait; one more is refused with 429.
    cache : bytes for keys and values of the requests under continuous batching.
    max_tokens : most tokens of an answer; by default as many as the guards look at, so that none is unjudged.
    max_prompt_tokens, max_body, max_choices : limits of a request, in tokens, bytes and choices.
    timeout : seconds a request may take in all. body_timeout, send_timeout : seconds that a client may take to send its
        request, and to take in a part of the answer.
    drain : seconds that running requests have to finish once the server is told to stop.
    """

    hold: Hold = "look"
    mode: Mode = "block"
    enforce: bool = False
    refusal: str | None = None
    engine: EngineName = "auto"
    slots: int = 32
    queue: int = 256
    cache: int = 2 << 30
    max_tokens: int | None = None
    max_prompt_tokens: int = 2048
    max_body: int = 1 << 20
    max_choices: int = 8
    timeout: float = 600.0
    body_timeout: float = 30.0
    send_timeout: float = 60.0
    drain: float = 30.0

    def __post_init__(self) -> None:
        for name, kind in (("hold", Hold), ("mode", Mode), ("engine", EngineName)):
            if getattr(self, name) not in get_args(kind):
                raise InputError(f"{name} is {getattr(self, name)!r}; give one of {', '.join(get_args(kind))}")
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            least = 0 if field.name == "queue" else 1
            if not math.isfinite(value) or (value <= 0 if isinstance(value, float) else value < least):
                raise InputError(f"{field.name} is {value}; give a number {'from 0 on' if not least else 'above 0'}")
