"""`Model`: a loaded network with its tokenizer, chat format, named layers and identity.

In: a torch module that `load` has built. Out: token ids for prompts, text for token ids, and the states of
chosen layers while the network runs. What a step is, and how tokens are chosen, is the samplers' business.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from demur.errors import InputError
from demur.models.capture import ThreadPasses, forks, innermost, passes_of, require_same_process
from demur.models.chat import ChatFormat, decode_response
from demur.models.fingerprint import network_hash, tokenizer_hash
from demur.models.traits import FAMILIES, Family, Traits
from demur.notebook import facts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Layer = int | str
Store = Callable[[int, torch.Tensor], None]
"""Takes in the place of a layer among those asked for, and its state."""


@dataclass(repr=False)
class Model:
    """A network ready to be recorded.

    network : the torch module, in eval mode; tokenizer : None where the checkpoint has none.
    family : "autoregressive", "masked-diffusion" or "uniform-diffusion", or another of `FAMILIES`.
    content : identity of config and weights, part of `fingerprint`; where it is empty, a hash over the weights that
        is taken anew when one of them has changed.
    eos_token_ids : tokens that end a response; may be set. pad_token_id : fills where nothing stands.
    mask_token_id : the token that stands for "not committed"; None for autoregressive models.
    context_length : most positions the network was built for, prompt and response together; None if unknown.
    sampler_defaults : arguments in which `default_sampler` departs from the sampler's own defaults.
    logits_shifted : masked diffusion only: the logits at position i - 1 predict position i.
    samplers : names of the samplers that decode it, where it takes others than its family's; the first is its own.
    content_before : gives the content as demur 0.1 told it, empty once the weights have been edited.
    final_norm : dotted name of the module whose output is the last layer's state; None for transformers'
        own classes, where it is the output of the decoder under the language-model head.
    loading : arguments of `load` that make this model in another process; None for one made in memory.
    execution : how the network is run, where that was chosen, as plain values; it changes results by rounding alone.
    forks_before : tells a process from those forked off it, see `states`.
    """

    network: Any
    tokenizer: PreTrainedTokenizerBase | None
    name: str
    family: Family
    content: str
    chat_format: ChatFormat
    eos_token_ids: list[int]
    pad_token_id: int
    mask_token_id: int | None = None
    context_length: int | None = None
    revision: str | None = None
    sampler_defaults: dict[str, Any] = field(default_factory=dict)
    logits_shifted: bool = False
    samplers: tuple[str, ...] = ()
    final_norm: str | None = None
    content_before: Callable[[], str] | None = field(default=None, repr=False, compare=False)
    execution: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    loading: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)
    forks_before: int = field(default_factory=forks, repr=False, compare=False)

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self._facts().items())
        return f"Model({self.name!r}, {said})"

    def _repr_html_(self) -> str:
        return facts(f"Model {self.name}", {**self._facts(), "tokenizer": type(self.tokenizer).__name__})

    def _facts(self) -> dict[str, Any]:
        dtype = str(self.dtype).removeprefix("torch.")
        sizes = {"layers": self.layer_count, "width": self.width}
        return {"family": self.family, **sizes, "dtype": dtype, "device": str(self.device)}

    @property
    def traits(self) -> Traits:
        """What models of its family can do."""
        return FAMILIES.find(self.family)

    @property
    def config(self) -> Any:
        """The text part of the network's config."""
        return self.network.config.get_text_config()

    @property
    def device(self) -> torch.device:
        """Where the network's weights lie."""
        place: torch.device = next(self.network.parameters()).device
        return place

    @property
    def dtype(self) -> torch.dtype:
        """That of the network's weights, by the first of them."""
        kind: torch.dtype = next(self.network.parameters()).dtype
        return kind

    @property
    def layer_count(self) -> int:
        """Number of blocks; the index of the last layer, whose state is taken after the final norm."""
        return int(self.config.num_hidden_layers)

    @property
    def width(self) -> int:
        """Size of a hidden state."""
        config = self.config
        return int(config.hidden_size if hasattr(config, "hidden_size") else config.d_model)

    @property
    def fingerprint(self) -> str:
        """sha256 over all that shapes a generation: weights, dtype, tokenizer, chat format, special tokens."""
        content = self.content or network_hash(self.network)
        return self._fingerprint({"content": content, "tokenizer": tokenizer_hash(self.tokenizer)})

    @property
    def former_fingerprint(self) -> str:
        """What demur 0.1 called this model, by its files, so that what it recorded is known again; else empty."""
        content = self.content_before() if self.content_before and not self.content else ""
        return self._fingerprint({"content": content}) if content else ""

    def _fingerprint(self, content: dict[str, str]) -> str:
        parts: dict[str, Any] = {
            **content,
            "dtype": str(self.dtype),
            "chat_format": self.chat_format.to_dict(),
            "eos_token_ids": sorted(self.eos_token_ids),
            "pad_token_id": self.pad_token_id,
            "mask_token_id": self.mask_token_id,
            "family": self.family,
            "logits_shifted": self.logits_shifted,
            "final_norm": self.final_norm,
        }
        if self.samplers:  # of the same weights, which attend otherwise; others keep the fingerprint they had
            parts["samplers"] = sorted(self.samplers)
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def default_sampler(self, steps: int = 32, **overrides: Any) -> Any:
        """The sampler that the checkpoint's authors would use, with `steps` steps; overrides win."""
        samplers = importlib.import_module("demur.samplers").SAMPLERS  # by name, because samplers import models
        sampler = samplers.find(self.samplers[0] if self.samplers else self.traits.sampler)
        return sampler(steps=steps, **{**self.sampler_defaults, **overrides})

    def encode(self, prompt: str, history: Sequence[Mapping[str, str]] = ()) -> list[int]:
        """Token ids of a user message in the model's chat format, the opening of the response included.

        history : the turns before it, each with `role` and `content`.
        """
        return self.chat_format.encode(self._need_tokenizer(), prompt, history)

    def encode_prefill(self, text: str) -> list[int]:
        """Token ids of text that stands at the beginning of a response, without special tokens."""
        return list(self._need_tokenizer()(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """Text of a response's token ids up to the first end-of-sequence, special tokens left out."""
        return decode_response(self._need_tokenizer(), tokens, self.eos_token_ids, self.chat_format.opening)

    def layer_index(self, layer: Layer) -> int:
        """The index of a layer as in transformers' ``hidden_states``.

        layer : "first" (output of the first block), "quarter", "middle", "last" (after the final norm), or a whole
            number from 0 (the embeddings) to `layer_count`, negative ones counted from the end.
        """
        count = self.layer_count
        named = {"first": min(1, count), "quarter": max(count // 4, min(1, count)), "middle": count // 2, "last": count}
        if isinstance(layer, str) and layer in named:
            return named[layer]
        try:
            index = int(layer)
        except ValueError:
            index = count + 1
        index = index + count + 1 if index < 0 else index
        if not 0 <= index <= count:
            raise InputError(
                f"layer {layer!r} is none of first, quarter, middle, last or a whole number from 0 to {count}"
            )
        return index

    @contextmanager
    def states(self, layers: Sequence[int]) -> Iterator[list[torch.Tensor]]:
        """While open, every forward pass of this thread leaves the states of `layers` in the list that this yields.

        Each entry is ``[batch, positions, width]`` and is overwritten by the next pass. Passes of other threads, and
        those inside a later call of `states`, are not seen. The hooks are removed on the way out. Open it around
        forward passes only, never across a ``yield``. Raises `InputError` in a process forked off the one that loaded
        the model, where torch has several threads.
        """
        require_same_process(self.name, self.forks_before)
        captured: list[torch.Tensor] = [torch.empty(0)] * len(layers)
        owner, home = object(), self.device

        def store(place: int, state: torch.Tensor) -> None:
            if innermost(self.network) is owner:  # layers of a network over several devices meet on its first one
                captured[place] = state if state.device == home else state.to(home)

        with passes_of(self.network, owner), self._hooks(layers, store):
            yield captured

    @contextmanager
    def thread_passes(self, layers: Sequence[int]) -> Iterator[ThreadPasses]:
        """While open, the passes that others run through the network are kept apart by thread.

        Passes inside `states` belong to whoever opened that and are not seen.
        """
        seen = ThreadPasses(len(layers))

        def store(place: int, state: torch.Tensor) -> None:
            if innermost(self.network) is None:
                seen.store(place, state)

        # `generate` compiles some passes; what is kept here is no part of them.
        with self._hooks(layers, torch.compiler.disable(store)):  # type: ignore[no-untyped-call]
            yield seen

    @property
    def decoder(self) -> Any:
        """The stack of blocks with its final norm, under the language-model head."""
        find = getattr(self.network, "get_decoder", None)
        found = find() if find else self.network
        if found is not self.network:
            return found
        # Llama 4 names no decoder; it is the child that holds the blocks.
        stacks = [child for child in self.network.children() if self._block_lists(child)]
        if len(stacks) != 1:
            raise InputError(
                f"{self.name}: {type(self.network).__name__} does not tell its decoder from its head, so states "
                "cannot be read; give final_norm to from_network, or a network with get_decoder()"
            )
        return stacks[0]

    @contextmanager
    def _hooks(self, layers: Sequence[int], store: Store) -> Iterator[None]:
        handles: list[Any] = []
        try:
            for place, index in enumerate(layers):
                handles.append(self._hook(index, place, store))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, index: int, place: int, store: Store) -> Any:
        if index == 0:

            def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                store(place, args[0] if args else kwargs["hidden_states"])

            return self.blocks()[0].register_forward_pre_hook(before, with_kwargs=True)

        def after(module: Any, args: tuple[Any, ...], output: Any) -> None:
            store(place, output if isinstance(output, torch.Tensor) else output[0])

        module = self._last_module() if index == self.layer_count else self.blocks()[index - 1]
        return module.register_forward_hook(after)

    def _last_module(self) -> torch.nn.Module:
        module: torch.nn.Module = self.network.get_submodule(self.final_norm) if self.final_norm else self.decoder
        return module

    def blocks(self) -> torch.nn.ModuleList:
        """The list of blocks: a child of the decoder, or a neighbour of the named final norm."""
        stack = self.network.get_submodule(self.final_norm.rpartition(".")[0]) if self.final_norm else self.decoder
        lists = self._block_lists(stack)
        if len(lists) != 1:
            raise InputError(
                f"{self.name}: the blocks of {type(self.network).__name__} cannot be told apart "
                f"({len(lists)} module lists of length {self.layer_count}); record layers=('last',) only"
            )
        return lists[0]

    def _block_lists(self, stack: torch.nn.Module) -> list[torch.nn.ModuleList]:
        return [
            child
            for child in stack.children()
            if isinstance(child, torch.nn.ModuleList) and len(child) == self.layer_count
        ]

    def _need_tokenizer(self) -> PreTrainedTokenizerBase:
        if self.tokenizer is None:
            raise InputError(
                f"{self.name}: has no tokenizer files, so text cannot be encoded or decoded; "
                f"give prompts as token_ids, or put the tokenizer files into the checkpoint folder"
            )
        return self.tokenizer
