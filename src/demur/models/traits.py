"""What a family of models can do, and `FAMILIES`, where each family registers under its name.

In: nothing. Out: `Traits`, which all code outside asks in place of comparing names. A family of one's own is an entry
here or in a plugin, a sampler and, for its checkpoints, a format.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from demur.plugins import Registry

Family = str
"""The name of a family, as in `FAMILIES`."""

DEFAULT: Family = "autoregressive"
"""What a checkpoint is taken for where no format says otherwise."""


@dataclass(frozen=True)
class Traits:
    """What the models of a family can do.

    sampler : the name in `demur.samplers.SAMPLERS` of what decodes them.
    left_to_right : a step is a token behind those before it, and a row may end before the others.
    revises : a token that is predicted and not committed may change at a later step.
    has_masks : a mask token stands where nothing is committed.
    forces : where a response may be given tokens: in its beginning, anywhere, or nowhere.
    sized : the user chooses the number of response positions beside the number of steps.
    bare_pass : the network can be run over tokens alone, without what only its sampler knows to make.
    likelihood : how a text's tokens are predicted from one another, if they can be.
    mend : what to do when a sampler of this family is given a model of another.
    """

    sampler: str
    left_to_right: bool = False
    revises: bool = True
    has_masks: bool = False
    forces: Literal["beginning", "anywhere", "nothing"] = "nothing"
    sized: bool = True
    bare_pass: bool = True
    likelihood: Literal["next token", "masked token"] | None = None
    mend: str = ""


FAMILIES: Registry[Traits] = Registry(
    "family",
    {
        "autoregressive": Traits(
            "Autoregressive",
            left_to_right=True,
            revises=False,
            forces="beginning",
            sized=False,
            likelihood="next token",
            mend="MaskedDiffusion with order='left_to_right' decodes a masked diffusion model so",
        ),
        "masked-diffusion": Traits(
            "MaskedDiffusion",
            has_masks=True,
            forces="anywhere",
            likelihood="masked token",
            mend="a network of that family in memory needs from_network(family=...) and a mask token",
        ),
        "uniform-diffusion": Traits("UniformDiffusion", forces="anywhere", sized=False, bare_pass=False),
    },
)
"""Every family by name; `FAMILIES.register(name)(Traits(...))` adds one."""
