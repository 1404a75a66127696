"""Whose forward pass it is: hidden states belong to the call that ran the network.

In: hooks that fire on every pass of a shared network. Out: an answer to "is this pass mine?". Several threads, and
several generators of one thread, may use one network at a time; each receives the states of its own passes alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from demur.errors import InputError


class _Stacks(threading.local):
    """The open captures of this thread, innermost last, by the id of the network they listen to."""

    def __init__(self) -> None:
        self.of: dict[int, list[object]] = {}


_stacks = _Stacks()
_forks = [0]
"""How often this process has been forked off one that had imported demur."""

os.register_at_fork(after_in_child=lambda: _forks.__setitem__(0, _forks[0] + 1))


def forks() -> int:
    """A number that differs between a process and those forked off it."""
    return _forks[0]


def innermost(network: torch.nn.Module) -> object | None:
    """The capture that this thread opened last for a network and has not closed; None where there is none."""
    stack = _stacks.of.get(id(network))
    return stack[-1] if stack else None


@contextmanager
def passes_of(network: torch.nn.Module, owner: object) -> Iterator[None]:
    """While open, every pass that this thread runs through `network` belongs to `owner`, and to no capture around it.

    Open it around forward passes only, never across a `yield` to other code.
    """
    stack = _stacks.of.setdefault(id(network), [])
    stack.append(owner)
    try:
        yield
    finally:
        stack.remove(owner)
        if not stack:
            _stacks.of.pop(id(network), None)


def require_same_process(name: str, made_at: int) -> None:
    """Refuse a model of a parent process where a forward pass would wait for that process's threads for ever."""
    if made_at != forks() and torch.get_num_threads() > 1:
        raise InputError(
            f"{name}: was loaded before this process was forked, and torch's threads do not survive a fork; "
            "start workers with the 'spawn' method, load the model in the worker, or call torch.set_num_threads(1)"
        )


class ThreadPasses:
    """The latest states of each thread's own passes, for a network that somebody else runs.

    states : one tensor ``[batch, positions, width]`` a layer. positions : of every pass since `take`, in order.
    """

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self._seen: dict[int, tuple[list[torch.Tensor], list[int]]] = {}

    def store(self, place: int, state: torch.Tensor) -> None:
        """Take in the state of the layer at `place` from a pass of the current thread.

        It is copied: a pass that is captured as a CUDA graph writes its next states to the same memory.
        """
        empty = [torch.empty(0)] * self._layers
        states, positions = self._seen.setdefault(threading.get_ident(), (empty, []))
        states[place] = state.clone()
        if place == 0:
            positions.append(state.shape[1] if state.ndim == 3 else -1)

    def take(self) -> tuple[list[torch.Tensor], list[int]]:
        """States of this thread's latest pass, and the positions of its passes since the last call."""
        states, positions = self._seen.get(threading.get_ident(), ([], []))
        self._seen[threading.get_ident()] = (states, [])
        return list(states), positions

    @property
    def any(self) -> bool:
        """Whether any thread ran a pass."""
        return bool(self._seen)
