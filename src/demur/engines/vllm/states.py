"""The states of a pass of vLLM's model at each request's last position, as transformers' ``hidden_states`` count them.

In: a model runner of vLLM (V1) and layers. Out: float32 ``[rows, layers, width]`` after each pass, and which rows get a
token. What the states are for is left to the recorder and the guard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from demur.errors import InputError


@dataclass(frozen=True)
class Pass:
    """names : the request of each row. states : ``[rows, layers, width]``. whole : rows whose text so far is all fed,
    so that a token comes next; the others are in the midst of a long prompt."""

    names: list[str]
    states: torch.Tensor
    whole: list[bool]


class RunnerStates:
    """Reads the layers' states out of every pass of a model runner.

    Raises `InputError` for a model whose blocks or final norm it cannot find, and after a pass that showed no states,
    as that of a compiled model: nothing then goes on unseen.
    """

    def __init__(self, runner: Any, layers: Sequence[int]) -> None:
        self._runner = runner
        self._latest: list[torch.Tensor | None] = [None] * len(layers)
        self._handles: list[Any] = []
        stack = decoder_of(runner.get_model())
        count = len(stack.layers)
        if wrong := [layer for layer in layers if not 0 <= layer <= count]:
            raise InputError(f"layer {wrong[0]} is none of this model's, which has {count}; it is another model")
        for place, layer in enumerate(layers):
            self._hook(stack, layer, count, place)

    def take(self) -> Pass:
        """The rows of the pass that has just run."""
        batch = self._runner.input_batch
        names = list(batch.req_ids[: batch.num_reqs])
        found = [state for state in self._latest if state is not None and len(state) == len(names)]
        if len(found) < len(self._latest):
            raise InputError("vLLM's model ran and showed no states; start it with --enforce-eager")
        self._latest = [None] * len(self._latest)
        partial = self._runner.discard_request_mask.np[: len(names)]
        return Pass(names, torch.stack(found, dim=1), (~partial).tolist())

    def close(self) -> None:
        """Read no more."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, stack: Any, layer: int, count: int, place: int) -> None:
        if layer == 0:

            def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                # A block of vLLM is called with positions, hidden states and the residual.
                self._store(place, kwargs["hidden_states"] if "hidden_states" in kwargs else args[1])

            self._handles.append(stack.layers[0].register_forward_pre_hook(before, with_kwargs=True))
            return

        def after(module: Any, args: tuple[Any, ...], output: Any) -> None:
            pair = output if isinstance(output, tuple) else (output, None)
            # A block leaves what it adds and the residual apart; the norm has added them.
            whole = pair[0] if layer == count or pair[1] is None else (pair[0], pair[1])
            self._store(place, whole)

        module = stack.norm if layer == count else stack.layers[layer - 1]
        self._handles.append(module.register_forward_hook(after))

    def _store(self, place: int, state: torch.Tensor | tuple[torch.Tensor, torch.Tensor]) -> None:
        """Keep the last position of each row; later blocks overwrite their inputs in place."""
        parts = state if isinstance(state, tuple) else (state,)
        batch = self._runner.input_batch
        starts = self._runner.query_start_loc
        if not batch.num_reqs or starts.np[batch.num_reqs] > len(parts[0]):
            return  # a trial pass at the start
        rows = starts.gpu[1 : batch.num_reqs + 1].long() - 1
        self._latest[place] = torch.stack([part[rows].float() for part in parts]).sum(dim=0)


def decoder_of(model: Any) -> Any:
    """The part of a vLLM model with `layers` and `norm`; `InputError` names a model that has none."""
    for part in (getattr(model, "model", None), getattr(getattr(model, "language_model", None), "model", None)):
        if hasattr(part, "layers") and hasattr(part, "norm"):
            return part
    raise InputError(
        f"demur does not know where {type(model).__name__} of vLLM keeps its blocks and final norm; models built like "
        "Llama and Qwen are read"
    )
