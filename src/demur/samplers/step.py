"""What a step is, and what every sampler has in common.

A sampler is a generator of `Step` over a left-padded batch. It knows tokens and states and nothing of
refusal; whoever consumes the steps decides what to keep.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from demur.errors import InputError
from demur.looks import WINDOW, Looks
from demur.models import FAMILIES, Family, Layer, Model

Pooling = Literal["paper", "released"]
Prefill = torch.Tensor | Sequence[Sequence[int]]
Steps = Generator["Step", torch.Tensor | None, None]
"""The steps of a batch; bool ``[batch]`` sent into it names rows that nobody waits for any more."""
FREE = -1
"""In a prefill tensor: a position that is not forced."""


@dataclass(frozen=True)
class Step:
    """The state of a batch of generations after one step.

    index : 1..T; 0 for the prompt's own state, which comes first where looks are asked for.
    committed : int64 ``[batch, response]``; the pad id (diffusion: the mask id) where nothing is committed.
    predicted : int64 ``[batch, response]``; committed tokens, and the current guess elsewhere.
    phi : float32 ``[batch, layers, width]``, the pooled state.
    is_committed : bool ``[batch, response]``; tells a committed token from a fill of the same id.
    window : float32 ``[batch, layers, width]``, at a look the mean over the latest tokens alone; else None.
    idle : bool ``[batch]``, rows for which the step did nothing; None from samplers that do not tell. Dropping these
        rows leaves the steps that the official sampler of a block diffusion model takes.
    prompt : int64 ``[batch, prompt]``, the prompts as they stand, where the sampler fills masks in them; else None.
    """

    index: int
    committed: torch.Tensor
    predicted: torch.Tensor
    phi: torch.Tensor
    is_committed: torch.Tensor
    window: torch.Tensor | None = None
    idle: torch.Tensor | None = None
    prompt: torch.Tensor | None = None


class Sampler(ABC):
    """A way of generating, step by step.

    step_count : T, the number of steps; response_length : number of response positions.
    revises : whether a prediction that is not committed yet can change at a later step.
    edits : whether a committed token can change at a later step.
    sees_prompt : whether the prompt's own state can be read, so that there is a look 0.
    """

    family: ClassVar[Family]
    revises: ClassVar[bool]
    edits: ClassVar[bool] = False
    sees_prompt: ClassVar[bool] = True
    step_count: int
    response_length: int
    _given: Mapping[str, Any] = MappingProxyType({})
    _later: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Arguments that a later version added, with what they are where unset: they are named only where they are set, so
    that what older versions recorded still matches."""

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        """Keep what the constructor is called with, so that no argument of a subclass is left out of `describe`."""
        sampler = super().__new__(cls)
        sampler._given = _by_name(cls, arguments, options)
        return sampler

    @property
    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments as plain values, `steps` among them: what two runs are compared by."""

    @abstractmethod
    def steps(
        self,
        model: Model,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        layers: Sequence[Layer] = ("last",),
        prefill: Prefill | None = None,
        samples: Sequence[int] | None = None,
        looks: Looks | None = None,
    ) -> Steps:
        """Generate for a batch and yield a `Step` after each step.

        Rows that are named in what is sent into it may be left out of all further work, and what later steps say of
        them means nothing.

        input_ids, attention_mask : int64 ``[batch, prompt]``, padded on the left.
        layers : see `Model.layer_index`.
        prefill : response tokens to force: a list of token ids a row for the beginning of the response,
            or int64 ``[batch, n]`` with -1 at positions left free.
        samples : which sample of its prompt each row is, counted from 0: another one draws other numbers. By default
            the rows of the batch that are alike are counted.
        looks : where states are kept of a whole answer. Each of these steps then has its `window`, and where 0 is among
            them a step 0 comes first, whose phi and window are the state of the last prompt token.
        """

    def from_left(self) -> Sampler | None:
        """A sampler of the same response over the same weights that commits from left to right, one token a step.

        None where there is none, as for samplers that do so themselves.
        """
        return None

    def read_order(self, masked: Sequence[bool]) -> list[int]:
        """The order in which a pass reads the response's positions, of which these are masked: by default their own."""
        return list(range(len(masked)))

    def sight(self, prompt_length: int, positions: int) -> np.ndarray | None:
        """Which of so many positions each one sees in a pass, bool ``[positions, positions]``, the seer first.

        None, the default, is what the network sees by itself.
        """
        return None

    def block_at(self, step: int, prompt_length: int) -> tuple[int, range]:
        """The block that a step belongs to: the first of its steps, and its response positions.

        A sampler that has such blocks takes an argument `banned` in `steps`, int64 ``[batch, response, n]``: tokens
        that are never predicted at their position, -1 for none. Others raise `InputError`.
        """
        raise InputError(f"{type(self).__name__} cannot fill in a block again; take MaskedDiffusion or BlockDiffusion")

    def has_state(self, prompt_length: int, committed: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The positions whose states phi counts after a step, bool ``[response]``: by default those committed.

        before : those committed before the step.
        """
        return committed

    def looks_of(self, window: int = WINDOW) -> Looks:
        """The looks of a generation by this sampler, without a window where that would hold the whole response.

        Raises `InputError` where its `steps` takes no looks.
        """
        taken = inspect.signature(self.steps).parameters.values()
        if not any(one.name == "looks" or one.kind is one.VAR_KEYWORD for one in taken):
            raise InputError(f"{type(self).__name__}: its `steps` takes no argument `looks`, so it cannot keep looks")
        looks = Looks.of(self.step_count, window, prompt=self.sees_prompt)
        return looks if window < self.response_length else replace(looks, window=None)

    def forced_steps(
        self,
        model: Model,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *,
        responses: torch.Tensor,
        layers: Sequence[Layer] = ("last",),
        samples: Sequence[int] | None = None,
        looks: Looks | None = None,
    ) -> Steps:
        """The steps in which whole given responses are committed, each position in its turn.

        responses : int64 ``[batch, response_length]``, a token at every position. The other arguments are those
            of `steps`. A sampler that cannot do it raises `InputError`.
        """
        raise InputError(f"{type(self).__name__} cannot force whole responses; use Autoregressive or MaskedDiffusion")

    def describe(self) -> dict[str, Any]:
        """Name and arguments, for a manifest and for comparison.

        What the constructor was called with and `arguments` does not name is added, so that two settings of a subclass
        are never taken for one. Raises `InputError` for such an argument that is no plain value.
        """
        named = {"name": type(self).__name__, **self.arguments}
        unset = {name for name, value in self._later.items() if getattr(self, name) == value}
        given = {key: value for key, value in self._given.items() if key not in named and key not in unset}
        return named | {key: self._value_of(key, value) for key, value in given.items()}

    def _value_of(self, name: str, given: Any) -> Any:
        """The value of an argument: the attribute of that name where it is of the same type, else what was given."""
        own = getattr(self, name, given)
        value = own if not callable(own) and (given is None or type(own) is type(given)) else given
        try:
            return json.loads(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{type(self).__name__}: its argument {name} is a {type(value).__name__}, which cannot be kept in a "
                f"recording; name it in `arguments` as a plain value"
            ) from error

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"{type(self).__name__}({arguments})"


def _by_name(kind: type, arguments: tuple[Any, ...], options: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call of a class by parameter, defaults included; what does not fit is left to the class."""
    signature = inspect.signature(kind.__init__)  # type: ignore[misc]
    try:
        call = signature.bind_partial(None, *arguments, **options)
    except TypeError:
        return {}
    call.apply_defaults()
    found: dict[str, Any] = {}
    for name, parameter in list(signature.parameters.items())[1:]:
        if parameter.kind is parameter.VAR_KEYWORD:
            found |= call.arguments.get(name, {})
        elif name in call.arguments and not (parameter.kind is parameter.VAR_POSITIONAL and not call.arguments[name]):
            found[name] = call.arguments[name]
    return found


def require_family(model: Model, sampler: Sampler) -> None:
    """Refuse a sampler that decodes models of another family."""
    name = type(sampler).__name__
    if model.samplers and model.family == sampler.family and not _is_one_of(sampler, model.samplers):
        raise InputError(
            f"{model.name}: is decoded by {' or '.join(model.samplers)}, not by {name}; leave the sampler out to take "
            f"the model's own"
        )
    if model.family != sampler.family:
        known = FAMILIES.get(sampler.family)
        raise InputError(
            f"{model.name}: is of the family {model.family} and {type(sampler).__name__} decodes {sampler.family} "
            f"models; leave the sampler out to take the model's own. {known.mend if known else ''}".rstrip()
        )


def _is_one_of(sampler: Sampler, names: Sequence[str]) -> bool:
    """Whether a sampler's class, or one it is derived from, has one of these names."""
    return any(kind.__name__ in names for kind in type(sampler).__mro__)


def checked_inputs(
    model: Model, sampler: Sampler, input_ids: torch.Tensor, attention_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both inputs as int64 on the model's device; refuses shapes that differ, right padding, another family."""
    require_family(model, sampler)
    ids = input_ids.to(model.device, torch.int64)
    mask = torch.ones_like(ids) if attention_mask is None else attention_mask.to(model.device, torch.int64)
    if ids.ndim != 2 or ids.shape != mask.shape or 0 in ids.shape:
        raise InputError(
            f"input_ids {tuple(ids.shape)} and attention_mask {tuple(mask.shape)} must both be [batch, prompt]"
        )
    if not bool((mask.diff(dim=1) >= 0).all() & (mask[:, -1] == 1).all()):
        raise InputError("attention_mask marks padding right of a token; pad prompts on the left")
    return ids, mask


def forced_tokens(prefill: Prefill | None, batch: int, response: int, device: torch.device) -> torch.Tensor:
    """The prefill as int64 ``[batch, response]`` with `FREE` at every position that is not forced."""
    forced = torch.full((batch, response), FREE, dtype=torch.int64)
    if prefill is None:
        return forced.to(device)
    if len(prefill) != batch:
        raise InputError(f"prefill has {len(prefill)} rows for a batch of {batch}")
    for row, tokens in enumerate(prefill):
        if len(tokens) > response:
            raise InputError(
                f"prefill row {row} has {len(tokens)} tokens, more than the response's {response} positions"
            )
        forced[row, : len(tokens)] = torch.as_tensor(tokens, dtype=torch.int64)
    return forced.to(device)


def whole_responses(responses: torch.Tensor, batch: int, length: int, device: torch.device) -> torch.Tensor:
    """Responses to force as int64 ``[batch, length]`` on `device`; refuses another shape and free positions."""
    if tuple(responses.shape) != (batch, length) or bool((responses < 0).any()):
        raise InputError(
            f"responses of shape {tuple(responses.shape)}; expected [{batch}, {length}] with a token at every position"
        )
    return responses.to(device, torch.int64)


def row_generators(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, seed: int, samples: Sequence[int] | None = None
) -> list[torch.Generator]:
    """A random generator a row, see `row_seeds`."""
    return [torch.Generator().manual_seed(one) for one in row_seeds(input_ids, attention_mask, seed, samples)]


def row_seeds(
    input_ids: torch.Tensor, attention_mask: torch.Tensor, seed: int, samples: Sequence[int] | None = None
) -> list[int]:
    """A seed a row, from the sampler's seed, the row's own tokens and which sample of them it is.

    A prompt so draws the same numbers whatever batch it is in and wherever a recording was resumed.
    """
    rows = [ids[mask.bool()] for ids, mask in zip(input_ids.cpu(), attention_mask.cpu(), strict=True)]
    numbers = occurrences([tuple(row.tolist()) for row in rows]) if samples is None else list(samples)
    if len(numbers) != len(rows):
        raise InputError(f"samples has {len(numbers)} numbers for a batch of {len(rows)}")
    return [row_seed(row, seed, number) for row, number in zip(rows, numbers, strict=True)]


def occurrences(things: Iterable[Hashable]) -> list[int]:
    """How many equal things stand before each one."""
    seen: Counter[Hashable] = Counter()
    numbers = []
    for thing in things:
        numbers.append(seen[thing])
        seen[thing] += 1
    return numbers


def row_seed(prompt_ids: torch.Tensor, seed: int, sample: int = 0) -> int:
    """The seed of one row's draws, from the sampler's seed and the prompt's token ids without padding.

    sample : which sample of this prompt it is; the first has the seed that prompts without others always had.
    """
    text = f"{seed}:{prompt_ids.tolist()}" + (f":{sample}" if sample else "")
    key = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(key[:8], "big")


def require_count(name: str, value: object, least: int | None = 1) -> int:
    """A whole number of at least `least` (None for any) as a plain int; refuses every other value."""
    if isinstance(value, bool) or not isinstance(value, Integral) or (least is not None and int(value) < least):
        what = "a whole number" if least is None else f"a whole number of at least {least}"
        raise InputError(f"{name} is {value!r}; it must be {what}")
    return int(value)


def require_switch(name: str, value: object) -> None:
    """Refuse an argument that is neither True nor False."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {value!r}; it must be True or False")


def require_at_least(name: str, value: float, least: float) -> None:
    """Refuse a sampler argument that is no finite number of at least its least value."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not isfinite(value) or value < least:
        raise InputError(f"{name} is {value!r}; it must be a number of at least {least}")


def require_one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a sampler argument that is none of its choices."""
    if not isinstance(value, str) or value not in choices:
        raise InputError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
