"""A toy masked-diffusion chat model that refuses, trained in seconds and saved in LLaDA's layout.

The words and answers are those of `toy`; the network sees in both directions and learns to fill in a response
of 16 positions, padded with <end>, from which a random number of tokens was masked (LLaDA's loss). Harmful
requests wrapped in "pretend" are answered and refused equally often, so there the sampler has a say.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import toy
from demur.models import make_bidirectional
from demur.models.formats.llada import BLOCK, TOP

RESPONSE = 16
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def tokenizer() -> PreTrainedTokenizerFast:
    words = toy.tokenizer()
    words.add_special_tokens({"mask_token": "<mask>"})
    return words


def examples(words: PreTrainedTokenizerFast) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids ``[examples, prompt + response]``, padded on the left, their mask, and which are of the response."""
    pairs = toy.examples(words) + wavering(words)
    longest = max(len(prompt) for prompt, _ in pairs)
    ids = torch.full((len(pairs), longest + RESPONSE), words.eos_token_id)
    seen = torch.ones_like(ids)
    for row, (prompt, response) in enumerate(pairs):
        ids[row, : longest - len(prompt)] = words.pad_token_id
        seen[row, : longest - len(prompt)] = 0
        ids[row, longest - len(prompt) : longest] = torch.tensor(prompt)
        ids[row, longest : longest + len(response)] = torch.tensor(response)
    return ids, seen, torch.arange(ids.shape[1]).expand_as(ids) >= longest


def wavering(words: PreTrainedTokenizerFast) -> list[tuple[list[int], list[int]]]:
    """The pairs in which the toy gives in, with a refusal for an answer."""
    pairs = iter(toy.examples(words))
    found = []
    for topic in toy.HARMLESS + toy.HARMFUL:
        for _ in toy.FORMS:
            next(pairs)  # without the attack
            prompt, _ = next(pairs)
            if topic in toy.HARMFUL:
                found.append((prompt, words(toy.answer(topic, refuse=True) + " <end>")["input_ids"]))
    return found


def train(words: PreTrainedTokenizerFast, rounds: int = 200) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(words), pad_token_id=words.pad_token_id, max_position_embeddings=128, **SIZES)
    network = make_bidirectional(LlamaForCausalLM(config))
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=rounds)
    ids, seen, response = examples(words)
    for _ in range(rounds):
        rows = torch.randperm(len(ids))[:48]
        masks = torch.randint(1, RESPONSE + 1, (len(rows), 1))
        order = torch.where(response[rows], torch.rand(len(rows), ids.shape[1]), 2).argsort(dim=1).argsort(dim=1)
        masked = order < masks
        logits = network(
            input_ids=ids[rows].masked_fill(masked, words.mask_token_id), attention_mask=seen[rows]
        ).logits[masked]
        losses = torch.nn.functional.cross_entropy(logits, ids[rows][masked], reduction="none")
        (losses / masks.expand_as(masked)[masked]).sum().div(len(rows)).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return network.eval()


def official_name(name: str) -> str:
    """The name in LLaDA's layout of a tensor of `LlamaForCausalLM`."""
    top = {theirs: f"model.transformer.{ours}" for ours, theirs in TOP.items()}
    module, _, kind = name.rpartition(".")
    if module in top:
        return f"{top[module]}.{kind}"
    _, _, number, inner = module.split(".", 3)
    block = {theirs: ours for ours, theirs in BLOCK.items()}
    return f"model.transformer.blocks.{number}.{block[inner]}.{kind}"


def save(folder: Path) -> Path:
    words = tokenizer()
    network = train(words)
    config = {
        "model_type": "llada",
        "d_model": SIZES["hidden_size"],
        "n_heads": SIZES["num_attention_heads"],
        "n_layers": SIZES["num_hidden_layers"],
        "mlp_hidden_size": SIZES["intermediate_size"],
        "vocab_size": len(words),
        "block_type": "llama",
        "activation_type": "silu",
        "layer_norm_type": "rms",
        "rope": True,
        "rms_norm_eps": network.config.rms_norm_eps,
        "include_bias": False,
        "weight_tying": False,
        "max_sequence_length": 128,
        "mask_token_id": words.mask_token_id,
        "eos_token_id": words.eos_token_id,
        "pad_token_id": words.pad_token_id,
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file({official_name(k): v.contiguous() for k, v in network.state_dict().items()}, folder / "model.safetensors")
    words.save_pretrained(folder)
    return folder
