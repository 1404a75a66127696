"""Lengths beyond which a network treats a text otherwise: windows, chunks, moving rotary frequencies.

In: a network's config. Out: those lengths. Below the smallest of them a short text tells how the network treats a
longer one; beyond it only a text of that length does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

COUNTED = re.compile(r"window|chunk|floor_scale|local_attention|block_len")
"""Config keys whose number is a length of text, in the networks known."""
NOT_COUNTED = ("max_window_layers", "chunk_size_feed_forward")


def limits(config: Any) -> list[int]:
    """Lengths in tokens at which the network begins to treat a text otherwise, ascending."""
    found = {value for key, value in _numbers(_plain(config)) if COUNTED.search(key) and key not in NOT_COUNTED}
    for rope in _ropes(config):
        if isinstance(original := rope.get("original_max_position_embeddings"), int):
            found.add(original)
    if moving := moving_rope(config):
        found.add(moving[1])
    return sorted(found)


def moving_rope(config: Any) -> tuple[str, int] | None:
    """The kind of rotary frequencies that depend on a text's length, "longrope" or "dynamic", and the length."""
    for rope in _ropes(config):
        kind = str(rope.get("rope_type", rope.get("type")))
        if kind in ("longrope", "su", "dynamic"):
            top = getattr(config, "original_max_position_embeddings", None)
            original = rope.get("original_max_position_embeddings") or top or config.max_position_embeddings
            return ("dynamic" if kind == "dynamic" else "longrope"), int(original)
    return None


def _plain(config: Any) -> Mapping[str, Any]:
    made = config.to_dict() if hasattr(config, "to_dict") else vars(config)
    return made if isinstance(made, Mapping) else {}


def _ropes(config: Any) -> Iterator[Mapping[str, Any]]:
    """The rotary settings: one, or one for each kind of layer."""
    for name in ("rope_parameters", "rope_scaling"):
        settings = getattr(config, name, None)
        if isinstance(settings, Mapping):
            yield settings
            yield from (value for value in settings.values() if isinstance(value, Mapping))


def _numbers(settings: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _numbers(value)
        elif isinstance(value, int) and not isinstance(value, bool) and value > 0:
            yield str(key), value
