"""What `record` was asked for, checked before anything is generated.

In: arguments as they were given. Out: a model, a sampler, layers and counts that mean one thing. A value that would be
ignored or misread is an `InputError` that names the mend.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from demur.errors import InputError
from demur.models import Layer, Model, load
from demur.models.in_memory import is_network
from demur.recording.folder import KEPT
from demur.samplers import Sampler

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STEPS, SEED = 32, 0
"""Of the model's own sampler, where none is given."""


def as_model(
    model: Model | str | Path | torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    needs_tokenizer: bool = True,
) -> Model:
    """The model itself, the one of that name, or one around a network in memory.

    needs_tokenizer : whether a network without its tokenizer is refused; only prompts of token ids go without.
    """
    if isinstance(model, Model):
        if tokenizer is not None:
            raise InputError(f"{model.name}: is a Model, which has its tokenizer; leave tokenizer out")
        return model
    if isinstance(model, str | Path) or (is_network(model) and (tokenizer is not None or not needs_tokenizer)):
        return load(model, tokenizer=tokenizer)
    raise InputError(
        f"model is a {type(model).__name__}; give a name, a folder or what demur.load returns, and for a network in "
        f"memory its tokenizer too, as tokenizer=… or by demur.models.from_network(network, tokenizer)"
    )


def chosen_sampler(model: Model, sampler: Sampler | None, steps: int | None, seed: int | None) -> Sampler:
    """The sampler that was given, or the model's own with `steps` and `seed`.

    Beside a sampler, steps and seed must be left out or be the sampler's own.
    """
    for name, value in (("steps", steps), ("seed", seed)):
        if value is not None:
            require_whole(name, value, least=1 if name == "steps" else None)
    if sampler is None:
        own_steps, own_seed = STEPS if steps is None else steps, SEED if seed is None else seed
        made: Sampler = model.default_sampler(steps=own_steps, seed=own_seed)
        return made
    if not isinstance(sampler, Sampler):
        what = f"the class {sampler.__name__}" if isinstance(sampler, type) else repr(sampler)
        raise InputError(
            f"sampler is {what}; give an object such as demur.samplers.Autoregressive(steps=32), or leave it out to "
            f"take the model's own"
        )
    given = sampler.describe()
    for name, value in (("steps", steps), ("seed", seed)):
        if value is not None and given.get(name, value) != value:
            raise InputError(
                f"{name}={value} beside a sampler of {name}={given[name]}; give it to the sampler, or leave it out"
            )
    return sampler


def layer_indices(model: Model, layers: Sequence[Layer] | Layer) -> list[int]:
    """The indices of `layers`, each once, in their order; a single one need not be in a list."""
    several: list[Any] = list(layers) if isinstance(layers, Sequence) and not isinstance(layers, str) else [layers]
    for layer in several:
        if not isinstance(layer, str):
            require_whole("layer", layer, least=None)
    indices = [model.layer_index(layer) for layer in several]
    if not indices:
        raise InputError("layers is empty; name at least one, such as 'last'")
    return list(dict.fromkeys(indices))


def require_whole(name: str, value: Any, least: int | None = 1) -> None:
    """Refuse what is no whole number, or below `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or (least is not None and int(value) < least):
        expected = "a whole number" if least is None else f"a whole number of at least {least}"
        raise InputError(f"{name} is {value!r}; expected {expected}")


def require_kept(keep: str) -> None:
    """Refuse what is no form in which states are kept."""
    if keep not in KEPT:
        raise InputError(f"keep is {keep!r}; expected one of {', '.join(map(repr, KEPT))}")
