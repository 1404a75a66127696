"""Block diffusion: the loss, and a network that begins at the weights of a masked diffusion model.

In: conversations as `train.py` draws them. Out: a loss, or a block-causal Qwen3 network. Beginning at a masked
diffusion model and going on with blocks is the recipe of Arriola et al. (Block Diffusion, 2025), as is reading noisy
and clean blocks in one pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from demur.models.formats.bidirectional import make_block_causal

LENGTH = 8
"""Positions of a block, counted from the prompt's first token."""


def block_loss(
    network: Qwen3ForCausalLM,
    prompts: torch.Tensor,
    mask: torch.Tensor,
    replies: torch.Tensor,
    tokenizer: PreTrainedTokenizerFast,
) -> torch.Tensor:
    """In each block exactly k reply tokens are masked, k even over 1..all of them, weighted by 1/k.

    One pass reads a noisy copy of the blocks with a reply beside the clean text: a noisy block sees itself and the
    clean blocks before it, as it does while it is generated.
    """
    logits, clean, hidden, weights = noisy_logits(network, prompts, mask, replies, tokenizer)
    losses = cross_entropy(logits[hidden].float(), clean[hidden], reduction="none")
    return (losses * weights[hidden]).sum() / weights[hidden].sum()


def noisy_logits(
    network: Qwen3ForCausalLM,
    prompts: torch.Tensor,
    mask: torch.Tensor,
    replies: torch.Tensor,
    tokenizer: PreTrainedTokenizerFast,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits ``[batch, copied, vocabulary]`` of the noisy copy; its clean tokens, what is masked, and the weights.

    The copy is the end of each text: the reply, filled up to whole blocks, and the rest of the block it begins in.
    """
    filled = torch.full((len(replies), LENGTH - 1), tokenizer.eos_token_id)
    replies = torch.cat([replies, filled], dim=1)
    clean = torch.cat([prompts, replies], dim=1)
    real = torch.cat([mask, torch.ones_like(replies)], dim=1)
    positions = (real.cumsum(dim=1) - 1).clamp(min=0)
    blocks = (positions // LENGTH).masked_fill(real == 0, -1)
    copied = min(replies.shape[1] + LENGTH - 1, clean.shape[1])
    answers = torch.zeros_like(clean, dtype=torch.bool)
    answers[:, prompts.shape[1] :] = True
    hidden, weights = hidden_in_blocks(blocks[:, -copied:], answers[:, -copied:])
    noisy = clean[:, -copied:].masked_fill(hidden, tokenizer.mask_token_id)
    output = network.model(
        input_ids=torch.cat([noisy, clean], dim=1),
        attention_mask=noisy_beside_clean(blocks, copied, network.dtype),
        position_ids=torch.cat([positions[:, -copied:], positions], dim=1),
        use_cache=False,
    )
    logits: torch.Tensor = network.lm_head(output.last_hidden_state[:, :copied])
    return logits, clean[:, -copied:], hidden, weights


def hidden_in_blocks(blocks: torch.Tensor, answers: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What is masked, bool ``[batch, positions]``, and the weight 1/k of each position's block.

    blocks : the block of each position. answers : the positions that may be masked.
    """
    together = blocks[:, :, None] == blocks[:, None, :]
    maskable = together & answers[:, None, :]
    first = together.int().argmax(dim=2)  # one draw a block: that of its first position
    counts = 1 + (torch.rand(blocks.shape).gather(1, first) * maskable.sum(dim=2)).long()
    order = torch.rand(blocks.shape)
    rank = (maskable & (order[:, None, :] < order[:, :, None])).sum(dim=2)
    return answers & (rank < counts), 1.0 / counts


def noisy_beside_clean(blocks: torch.Tensor, copied: int, dtype: torch.dtype) -> torch.Tensor:
    """The additive mask of a noisy copy of the last `copied` positions, followed by the clean text.

    blocks : of the clean positions, -1 for padding. Out: ``[batch, 1, copied + positions, copied + positions]``.
    """
    noisy, there = blocks[:, -copied:], (blocks >= 0)[:, None, :]
    itself = noisy[:, None, :] == noisy[:, :, None]
    earlier = (blocks[:, None, :] < noisy[:, :, None]) & there
    until = (blocks[:, None, :] <= blocks[:, :, None]) & there
    nothing = torch.zeros_like(until[:, :, :copied])
    seen = torch.cat([torch.cat([itself, earlier], dim=2), torch.cat([nothing, until], dim=2)], dim=1)
    additive = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
    return additive[:, None]


@torch.no_grad()
def from_diffusion(
    network: LlamaForCausalLM, prompts: torch.Tensor, mask: torch.Tensor, replies: torch.Tensor
) -> Qwen3ForCausalLM:
    """A block-causal Qwen3 network with the weights of a masked diffusion one.

    Qwen3 norms queries and keys, which Llama does not: the norms begin with the mean size that queries and keys of each
    layer have over some conversations.
    """
    config = network.config
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    names += ("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "rope_parameters")
    names += ("eos_token_id", "pad_token_id")
    settings: dict[str, Any] = {name: getattr(config, name) for name in names}
    size = config.hidden_size // config.num_attention_heads
    grown = Qwen3ForCausalLM(Qwen3Config(**settings, head_dim=size, tie_word_embeddings=True))
    grown.load_state_dict(network.state_dict(), strict=False)
    sizes: dict[str, torch.Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda _, __, out, name=name: sizes.update({name: out.pow(2).mean().sqrt()}))
        for name, module in network.named_modules()
        if name.endswith(("q_proj", "k_proj"))
    ]
    network(torch.cat([prompts, replies], dim=1), attention_mask=torch.cat([mask, torch.ones_like(replies)], dim=1))
    for hook in hooks:
        hook.remove()
    for name, length in sizes.items():
        grown.get_submodule(name.replace("_proj", "_norm")).weight.fill_(length)
    return make_block_causal(grown, LENGTH)
