"""What demur takes of DiffusionGemma's `generate`: whether all parts are there, and how a batch draws in them.

In: a network of transformers. Out: an error that names the part which this transformers lacks, or draws that a row
gets alone. What is done with the parts is in `canvases`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from demur.errors import InputError

PARTS: Mapping[str, tuple[str, ...]] = {
    "_prepare_generation_config": ("generation_config",),
    "_prepare_sampler": ("generation_config",),
    "_prepare_logits_processor": ("generation_config",),
    "_prepare_ar_stopping_criteria": ("generation_config",),
    "_prepare_diffusion_stopping_criteria": ("generation_config",),
    "_prepare_encoder_inputs": (
        *("input_ids", "attention_mask", "encoder_position_ids", "past_key_values"),
        *("is_prefill", "canvas_length", "batch_size"),
    ),
    "_prepare_denoiser_inputs": (
        *("decoder_attention_mask", "past_key_values", "sampler", "diffusion_stopping_criteria"),
        *("batch_size", "device", "model_kwargs"),
    ),
    "_denoising_step": (
        *("decoder_forward", "current_canvas", "argmax_canvas", "input_ids", "decoder_position_ids"),
        *("self_conditioning_logits", "mask_mapping", "past_key_values", "finished_denoising", "cur_step"),
        *("sampler", "logits_processor", "diffusion_stopping_criteria"),
    ),
    "_finalize_canvas": (
        *("input_ids", "finished_sequences", "generation_config", "stopping_criteria"),
        *("canvas_length", "eos_tensor"),
    ),
    "model.encoder.forward": ("input_ids", "attention_mask", "past_key_values", "position_ids"),
    "model.decoder.create_diffusion_decoder_attention_mask": (
        *("config", "inputs_embeds", "past_key_values", "decoder_attention_mask"),
    ),
}
"""Every function of the network that is called, and the arguments that it is given."""


def require_parts(network: Any) -> None:
    """Refuse a network whose `generate` is not made of the parts that are used; most are no public interface."""
    for name, arguments in PARTS.items():
        part = network
        for one in name.split("."):
            part = getattr(part, one, None)
        if part is None or not set(arguments) <= set(inspect.signature(part).parameters):
            raise InputError(
                f"{type(network).__name__} has no {name}({', '.join(arguments)}) in this transformers, which "
                f"UniformDiffusion needs; install transformers 5.23"
            )


class RowDraws(TorchFunctionMode):
    """While open, what this thread draws for a batch is drawn row by row, each from a generator of its own.

    A row so draws the numbers that `generate` draws for it alone, and torch's own generator is left as it was.
    `generate` draws canvases by `torch.randint` ``[rows, canvas]`` and tokens by `torch.multinomial`.
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        super().__init__()
        self.generators = generators

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options, name = dict(kwargs or {}), getattr(func, "__name__", "")
        if name == "randint":
            _, length = options.pop("size")
            return torch.cat([func(*args, size=(1, length), generator=one, **options) for one in self.generators])
        if name == "multinomial":
            shares = args[0].chunk(len(self.generators))
            drawn = zip(shares, self.generators, strict=True)
            return torch.cat([func(share, *args[1:], generator=one, **options) for share, one in drawn])
        return func(*args, **options)
