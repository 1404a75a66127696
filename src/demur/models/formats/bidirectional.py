"""A causal network as a bidirectional or a block-causal one.

In: one of transformers' decoder-only networks. Out: the same network, which now takes the plain
``[batch, positions]`` attention mask and attends in both directions, or within blocks and to those before. How the
weights got there is not known here.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch

Network = TypeVar("Network", bound=torch.nn.Module)


def make_bidirectional(network: Network) -> Network:
    """Let every position of a causal network attend to every position that is not padding.

    network : a transformers network with a decoder under its head, changed in place and returned. It is
        called as before, with a mask ``[batch, positions]`` or none; positions count from the first real
        token where none are given. The cache is turned off: with full attention no state stays valid.
    """
    return _with_block(network, None)


def make_block_causal(network: Network, block_length: int) -> Network:
    """Let every position of a causal network attend to its own block of `block_length` positions and those before.

    Blocks count from the first real token. The network is changed in place and called as in `make_bidirectional`;
    a mask of four dimensions is taken as it is. Called again, it sets another block length.
    """
    return _with_block(network, block_length)


def _with_block(network: Network, block_length: int | None) -> Network:
    decoder: Any = network.get_decoder()  # type: ignore[operator]
    for key, hook in list(decoder._forward_pre_hooks.items()):
        if isinstance(hook, _Sight):
            del decoder._forward_pre_hooks[key], decoder._forward_pre_hooks_with_kwargs[key]
    decoder.register_forward_pre_hook(_Sight(block_length), with_kwargs=True)
    decoder.config.use_cache = False
    return network


def additive_mask(hidden: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The mask ``[batch, 1, queries, keys]`` that transformers adds to attention scores.

    hidden : bool ``[batch, queries, keys]``, which keys a query does not see.
    """
    added = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return added.masked_fill_(hidden, torch.finfo(dtype).min).unsqueeze(1)


class _Sight:
    """A hook that makes of a mask ``[batch, positions]`` one of what each position sees.

    block_length : None sees everything.
    """

    def __init__(self, block_length: int | None) -> None:
        self.block_length = block_length

    def __call__(self, decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
        inputs = args[0] if args else kwargs.get("input_ids")
        inputs = kwargs["inputs_embeds"] if inputs is None else inputs
        mask = kwargs.get("attention_mask")
        if mask is None:
            mask = torch.ones(inputs.shape[:2], dtype=torch.int64, device=inputs.device)
        if mask.ndim == 2:
            positions = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
            # An explicit 4-D mask: without one, transformers and SDPA fall back to a causal mask.
            hidden = (mask == 0)[:, None, :]
            if self.block_length is not None:
                block = positions // self.block_length
                hidden = hidden | (block[:, None, :] > block[:, :, None])
            kwargs["attention_mask"] = additive_mask(hidden, decoder.dtype).expand(-1, 1, mask.shape[1], -1)
            if kwargs.get("position_ids") is None:
                kwargs["position_ids"] = positions
        return args, kwargs
