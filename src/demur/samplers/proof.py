"""Which ways of feeding a network are right, shown on the network itself.

In: a model, and the length of text that is to be fed. Out: a `Way`. Every way must give the states that one plain
pass over an unpadded text gives; what does not is not used, and a network that cannot be followed at all is an
`InputError` before anything is generated. Proofs are kept as long as the network lives.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch

from demur.errors import InputError
from demur.models import Model
from demur.samplers.limits import limits, moving_rope
from demur.samplers.rows import CACHE_ARGUMENTS, LEAST_SHARED, Rows, Way, accepted, chosen_cache, newest_states

SHORT = 12
"""Tokens of the text that proofs are made with, where the network treats longer ones alike."""
FED = 3
"""Tokens of it that are fed one by one."""

_lock = threading.RLock()
_proven: WeakKeyDictionary[torch.nn.Module, dict[Any, Way]] = WeakKeyDictionary()
_neutral: WeakKeyDictionary[torch.nn.Module, dict[Any, bool]] = WeakKeyDictionary()


def way_for(model: Model, length: int, rows: int) -> Way:
    """How `rows` rows of at most `length` tokens, padding and response included, may be fed to a model's network.

    Raises `InputError` where the network does not decode left to right, or its states cannot be read.
    """
    needed, sharing = _proof_length(model, length) if rows > 1 else (0, False)
    with _lock:
        known = _proven.setdefault(model.network, {})
        setting = _setting(model)
        if (setting, 0) not in known:
            known[setting, 0] = _unpadded(model)
        if (setting, needed) not in known:
            known[setting, needed] = _padded(model, known[setting, 0], needed)
        way = known[setting, needed]
    return way if sharing else replace(way, shared=False)


def padding_is_neutral(model: Model, length: int) -> bool:
    """Whether a network that sees all positions at once gives rows of up to `length` the same states when padded.

    Only padding on the left is tried, and only up to the lengths at which the network treats a text otherwise.
    """
    needed, _ = _proof_length(model, length)
    if not needed or any(limit < length for limit in limits(model.config)):
        return False
    with _lock:
        known = _neutral.setdefault(model.network, {})
        if (key := (_setting(model), needed)) not in known:
            known[key] = _neutral_at(model, needed)
        return known[key]


@torch.no_grad()
def _neutral_at(model: Model, length: int) -> bool:
    long = _text(model, length)
    short = long[-(length // 2) :]
    ids = torch.stack([long, torch.cat([long[:1].expand(length - len(short)), short])])
    mask = (torch.arange(length, device=ids.device) >= torch.tensor([[0], [length - len(short)]]).to(ids.device)).long()
    found = []
    for tokens, seen in ((ids, mask), (ids[:1], mask[:1]), (short.unsqueeze(0), torch.ones_like(short).unsqueeze(0))):
        with model.states([model.layer_count]) as states:
            full_pass(model, model.network, tokens, seen)
        newest_states(model, states, tokens)
        found.append(states[0])
    both, alone, shorter = found
    return _alike(model, both[0], alone[0]) and _alike(model, both[1, -len(short) :], shorter[0])


def full_pass(model: Model, target: Any, tokens: torch.Tensor, mask: torch.Tensor) -> Any:
    """A pass over whole rows without a cache; `target` is the model's network or its decoder."""
    options = {"attention_mask": mask, "position_ids": (mask.cumsum(dim=1) - 1).clamp(min=0), "use_cache": False}
    # The decoder of a network in a wrapper takes what the wrapper's network names, and is given the same.
    return target(input_ids=tokens, **{**accepted(model.network, options), "attention_mask": mask})


def _setting(model: Model) -> tuple[str, ...]:
    """What the same network may be changed in, so that another way may be right."""
    attention = str(getattr(model.config, "_attn_implementation", None))
    return attention, str(model.dtype), str(model.device), str(chosen_cache(model))


def _proof_length(model: Model, length: int) -> tuple[int, bool]:
    """How long a text must be for a proof to hold at `length`, 0 for rows of one length only; may rows share?"""
    moving = moving_rope(model.config)
    if moving and length > moving[1]:
        return 0, False
    if not type(model.network).__module__.startswith("transformers."):
        # Nobody knows the windows of foreign code: prove it at the length itself, in powers of two.
        power = 1 << (max(length, SHORT) - 1).bit_length()
        limit = model.context_length or 0
        return (min(power, limit) if limit >= SHORT else power), True
    passed = [limit for limit in limits(model.config) if limit < length]
    # Padding behind a shared beginning takes up room in a window; on the left it falls out first.
    return (max(SHORT, passed[-1] + SHORT), False) if passed else (SHORT, True)


@torch.no_grad()
def _unpadded(model: Model) -> Way:
    """The way for rows of one length: with which cache, and whether the decoder alone will do."""
    if model.network.training:
        raise InputError(f"{model.name}: the network is in training mode, which is random; call network.eval()")
    ids = _text(model, SHORT)
    plain = _plain(model, ids)
    if not torch.isfinite(plain).all():
        return Way(cache=CACHE_ARGUMENTS[0])  # whoever reads the states will say so; nothing can be proven
    if not _alike(model, _plain(model, ids[:-FED])[-1], plain[-FED - 1]):
        raise InputError(
            f"{model.name}: the states of {type(model.network).__name__} change with tokens that come later, so it "
            "does not decode left to right (a masked language model?); an autoregressive sampler cannot follow it"
        )
    texts = [ids, ids.flip(0)]
    truths = [plain, _plain(model, texts[1])]
    if not _holds(model, Way(), texts, truths):
        raise InputError(
            f"{model.name}: {type(model.network).__name__} gives other states in a batch of rows of one length, or "
            "with the positions that generate tells it (counted from 0), than alone; its states cannot be recorded"
        )
    asked = chosen_cache(model)
    for name in CACHE_ARGUMENTS[:1] if asked else CACHE_ARGUMENTS:
        way = Way(cache=name)
        if _holds(model, way, texts, truths):
            bare = replace(way, bare=True)
            return bare if _holds(model, bare, texts, truths) else way
    if asked:
        raise InputError(
            f"{model.name}: {type(model.network).__name__} does not give the states of a plain pass with the cache "
            f"{asked!r}; leave cache out, and the network has its own"
        )
    return Way()


@torch.no_grad()
def _padded(model: Model, way: Way, length: int) -> Way:
    """The same, with what padding may be used in rows of up to `length` tokens; 0 allows none."""
    if not length or way.cache is None:
        return way
    long = _text(model, length)
    short = torch.cat([long[: max(LEAST_SHARED, length // 2)], long[-FED - 2 :]])
    texts = [long, short, long.flip(0)]
    truths = [_plain(model, text) for text in texts]
    if not all(torch.isfinite(truth).all() for truth in truths):
        return way
    way = replace(way, selectable=_holds(model, replace(way, selectable=True), [long, long.flip(0)], truths[::2], 1))
    padded = replace(way, padded=True)
    if not _holds(model, padded, texts, truths):
        return way
    shared = replace(padded, shared=way.bare and way.selectable)
    return shared if shared.shared and _holds(model, shared, texts[:2], truths[:2]) else padded


def _holds(
    model: Model, way: Way, texts: Sequence[torch.Tensor], truths: Sequence[torch.Tensor], dropped: int = 0
) -> bool:
    """Whether texts fed this way have the states of `truths` at their last positions.

    dropped : rows that are dropped from the front before the last token.
    """
    width = max(map(len, texts)) - FED
    ids = torch.stack([torch.cat([text[:1].expand(width + FED - len(text)), text]) for text in texts])
    mask = torch.stack([(torch.arange(width, device=ids.device) >= width + FED - len(text)).long() for text in texts])
    rows = Rows(model, ids[:, :-FED], mask, [model.layer_count], way, FED)
    kept = torch.arange(len(texts), device=ids.device) >= dropped
    try:
        rows.prompt()
        found = [rows.newest[:, 0]]
        for place in range(FED, 0, -1):
            if place == 1 and dropped:
                rows.keep(kept)
                found = [state[kept] for state in found]
                ids, truths = ids[kept], truths[dropped:]
            rows.token(ids[:, -place], with_logits=False)
            found.append(rows.newest[:, 0])
    except torch.OutOfMemoryError:
        raise
    except Exception:  # whatever a network does not take is a way that is not taken
        return False
    expected = torch.stack([truth[-FED - 1 :] for truth in truths])
    return _alike(model, torch.stack(found, dim=1), expected)


def _plain(model: Model, ids: torch.Tensor) -> torch.Tensor:
    """The last layer's states in one pass over an unpadded text without a cache, ``[tokens, width]``.

    Raises `InputError` where the network does not run, or what it gives are no states.
    """
    rows = Rows(model, ids.unsqueeze(0), torch.ones_like(ids).unsqueeze(0), [model.layer_count], Way())
    try:
        return rows.plain_states()
    except (InputError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{model.name}: {type(model.network).__name__} does not run on plain token ids: {reason}"
        ) from error


def _text(model: Model, length: int) -> torch.Tensor:
    """Token ids that mean nothing and are none of the special ones, ``[length]``."""
    settings = model.config.to_dict() if hasattr(model.config, "to_dict") else {}
    special = {value for key, value in settings.items() if key.endswith(("token_id", "token_index"))}
    special = {value for value in special if isinstance(value, int)} | set(model.eos_token_ids)
    special |= {model.pad_token_id, model.mask_token_id or 0}
    choice = [one for one in range(min(int(model.config.vocab_size), 4096)) if one not in special] or [0]
    places = torch.randint(len(choice), (length,), generator=torch.Generator().manual_seed(0))
    return torch.tensor(choice)[places].to(model.device)


def _alike(model: Model, found: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether states ``[..., width]`` are the same but for rounding."""
    tolerance = 1e-3 if model.dtype in (torch.float32, torch.float64) else 0.1
    differences = (found.float() - expected.float()).norm(dim=-1)
    return bool((differences <= tolerance * expected.float().norm(dim=-1)).all())
