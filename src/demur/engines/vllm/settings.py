"""How a guarded vLLM is asked to behave, from environment variables: all processes of vLLM read the same.

In: DEMUR_GUARD, DEMUR_MODE, DEMUR_HOLD, DEMUR_VERIFY. Out: settings, or an `InputError` that names the variable.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any, Literal, cast

from demur.errors import InputError

GUARD, MODE, HOLD, VERIFY = "DEMUR_GUARD", "DEMUR_MODE", "DEMUR_HOLD", "DEMUR_VERIFY"
KNOWN = "DEMUR_VERIFIED_MODEL"
"""Set by demur itself: what the process that verified the model found, for those that it starts."""


@dataclass(frozen=True)
class Settings:
    """places : files, folders or names of guards. mode : "block" stops what a guard flags, "score" only reports it.
    hold : what a client may see before its verdict, as `demur serve --hold`. verify : whether the weights are compared.
    """

    places: tuple[str, ...]
    mode: Literal["block", "score"] = "block"
    hold: Literal["look", "none", "all"] = "look"
    verify: bool = True

    @classmethod
    def read(cls) -> Settings | None:
        """The settings of this process; None where no guard is asked for."""
        places = tuple(one for one in os.environ.get(GUARD, "").split(os.pathsep) if one)
        if not places:
            return None
        mode = cast(Any, _one_of(MODE, "block", "score"))
        return cls(places, mode, cast(Any, _one_of(HOLD, "look", "none", "all")), _one_of(VERIFY, "1", "0") == "1")


@dataclass(frozen=True)
class KnownModel:
    """The identity of the model that vLLM runs, as `Model` has it."""

    name: str
    fingerprint: str
    former_fingerprint: str

    def pass_on(self) -> None:
        os.environ[KNOWN] = json.dumps(vars(self))

    @classmethod
    def received(cls) -> KnownModel:
        """What was verified; `InputError` where nothing was, so that no guard runs on a model that nobody looked at."""
        if KNOWN not in os.environ:
            raise InputError("vLLM was started in a way that demur's plugin did not see; start it by `vllm serve`")
        return cls(**json.loads(os.environ[KNOWN]))


def _one_of(name: str, *choices: str) -> str:
    """A variable's value, the first choice where it is not set."""
    value = os.environ.get(name) or choices[0]
    if value not in choices:
        raise InputError(f"{name} is {value!r}; give one of {', '.join(choices)}")
    return value
