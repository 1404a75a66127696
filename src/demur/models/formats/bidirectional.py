"""A causal network as a bidirectional one: every position sees every other, padding excepted.

In: one of transformers' decoder-only networks. Out: the same network, which now takes the plain
``[batch, positions]`` attention mask and attends in both directions. How the weights got there is not
known here.
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
    decoder: Any = network.get_decoder()  # type: ignore[operator]
    if _see_everything not in decoder._forward_pre_hooks.values():
        decoder.register_forward_pre_hook(_see_everything, with_kwargs=True)
    decoder.config.use_cache = False
    return network


def _see_everything(decoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], Any]:
    inputs = args[0] if args else kwargs.get("input_ids")
    inputs = kwargs["inputs_embeds"] if inputs is None else inputs
    mask = kwargs.get("attention_mask")
    if mask is None:
        mask = torch.ones(inputs.shape[:2], dtype=torch.int64, device=inputs.device)
    if mask.ndim == 2:
        # An explicit 4-D mask: without one, transformers and SDPA fall back to a causal mask.
        additive = torch.zeros(mask.shape, dtype=decoder.dtype, device=mask.device)
        additive.masked_fill_(mask == 0, torch.finfo(decoder.dtype).min)
        kwargs["attention_mask"] = additive[:, None, None, :].expand(-1, 1, mask.shape[1], -1)
        if kwargs.get("position_ids") is None:
            kwargs["position_ids"] = (mask.long().cumsum(dim=1) - 1).clamp(min=0)
    return args, kwargs
