"""Tiny random networks that are right, and the same ones broken in ways that real code has been broken in."""

from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from demur.models import Model, from_network, make_bidirectional

BASE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 1,
    "eos_token_id": 3,
    "bos_token_id": 4,
}
GPT2 = {"vocab_size": 300, "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 512, "eos_token_id": 3}
WINDOW = {"head_dim": 8, "sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"] * 2}
MASK = 299


def network_of(kind: str, **settings: Any) -> Any:
    """A random network that says something else for every prompt."""
    torch.manual_seed(1)
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings)).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0, 0.15)
    return network


def llama() -> Model:
    return from_network(network_of("llama", **BASE), name="llama", eos_token_ids=[])


def gpt2() -> Model:
    return from_network(network_of("gpt2", **GPT2), name="gpt2", eos_token_ids=[])


def windowed() -> Model:
    return from_network(network_of("gemma3_text", **BASE, **WINDOW), name="windowed", eos_token_ids=[])


def mamba() -> Model:
    sizes = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 4, "state_size": 8, "pad_token_id": 1}
    return from_network(network_of("mamba", **sizes, eos_token_id=3), name="mamba", eos_token_ids=[])


def diffusion() -> Model:
    network = make_bidirectional(network_of("llama", **BASE))
    return from_network(network, name="diffusion", family="masked-diffusion", mask_token_id=MASK, eos_token_ids=[3])


def without(model: Model, argument: str) -> Model:
    """The model whose blocks never hear of an argument of the decoder, such as its attention mask."""

    def drop(decoder: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        return args, {**kwargs, argument: None}

    model.decoder.register_forward_pre_hook(drop, with_kwargs=True, prepend=True)
    return model


def leaking(model: Model, rows: int = 1) -> Model:
    """The model whose first block lets rows of a batch see each other, where there are more than so many of them."""

    def leak(state: torch.Tensor) -> torch.Tensor:
        return state + 0.1 * state.mean(dim=(0, 1), keepdim=True) if len(state) > rows else state

    return _after_first_block(model, leak)


def _after_first_block(model: Model, change: Callable[[torch.Tensor], torch.Tensor]) -> Model:
    def hook(block: Any, args: Any, output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            return change(output)
        return (change(output[0]), *output[1:])

    stack = next(child for child in model.decoder.children() if isinstance(child, torch.nn.ModuleList))
    stack[0].register_forward_hook(hook)
    return model


def telling_other_states(model: Model) -> Model:
    """The model whose ``hidden_states`` are not what its blocks give."""

    def hook(network: Any, args: Any, output: Any) -> Any:
        if output.hidden_states is not None:
            output["hidden_states"] = tuple(state + 0.01 for state in output.hidden_states)
        return output

    model.network.register_forward_hook(hook)
    return model
