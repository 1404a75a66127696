"""The canvases of a batch, denoised together on the parts of DiffusionGemma's own `generate`.

In: left-padded prompts and a seed a row. Out: drafts and states, a denoising step at a time. Rows whose canvas is done
or that nobody waits for take no part in a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch

from demur.models import Model
from demur.samplers.step import FREE
from demur.samplers.uniform_diffusion.parts import RowDraws, require_parts


@dataclass(frozen=True)
class Denoised:
    """What a denoising step did.

    rows : int64 ``[n]``, the rows of the batch that took part. states : one ``[n, canvas, width]`` for each layer.
    over : bool ``[n]``, whose canvas is done. ended : bool ``[n]``, whose response is.
    """

    rows: torch.Tensor
    states: list[torch.Tensor]
    over: torch.Tensor
    ended: torch.Tensor


class Canvases:
    """A batch on its way from canvas to canvas.

    input_ids, attention_mask : int64 ``[batch, prompt]``, padded on the left. forced : int64 ``[batch, response]``,
    `FREE` where nothing is forced. share : denoising steps of a canvas. drafts : int64 ``[batch, response]``, the
    latest draft of the canvases begun, pad in later ones.
    Keys and values are held in a dynamic cache, whatever the generation config names.
    """

    def __init__(
        self,
        model: Model,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        forced: torch.Tensor,
        seeds: Sequence[int],
        share: int,
        layers: Sequence[int],
    ) -> None:
        from transformers import DynamicCache

        self.model, self.network, self.layers, self.forced = model, model.network, layers, forced
        require_parts(self.network)
        self.length, self.prompt = int(self.network.config.canvas_length), input_ids.shape[1]
        ends, response = model.eos_token_ids or None, forced.shape[1]
        # A max_length of the generation config would win over max_new_tokens if that is 256.
        given = {"max_new_tokens": response, "max_length": self.prompt + response, "max_denoising_steps": share}
        self.config, _ = self.network._prepare_generation_config(None, **given, eos_token_id=ends)
        self.sampler = self.network._prepare_sampler(self.config)
        self.processors = self.network._prepare_logits_processor(self.config)
        self.stopping = self.network._prepare_diffusion_stopping_criteria(self.config)
        self.endings = self.network._prepare_ar_stopping_criteria(self.config)
        self.eos = ends and torch.tensor(ends, device=input_ids.device)
        self.generators = [torch.Generator(input_ids.device).manual_seed(seed) for seed in seeds]
        self.text = torch.cat([input_ids, torch.full_like(forced, model.pad_token_id)], dim=1)
        self.seen = torch.cat([attention_mask.bool(), torch.ones_like(forced, dtype=torch.bool)], dim=1)
        self.positions = (self.seen.int().cumsum(dim=1) - 1).clamp(min=0).int()
        self.cache: Any = DynamicCache(config=self.network.config.get_text_config(decoder=True))
        self.rows = torch.arange(len(input_ids), device=input_ids.device)  # those in the cache
        self.place = slice(0, 0)  # of the current canvas in the response

    @property
    def drafts(self) -> torch.Tensor:
        return self.text[:, self.prompt :]

    def begin(self, number: int, going: torch.Tensor) -> None:
        """Encode what stands before a canvas, of the rows still going ``[batch]``, and fill the canvas at random.

        number : of the canvas, from 0; they come in their order.
        """
        self.place = slice(number * self.length, (number + 1) * self.length)
        first, before = number == 0, self.prompt + self.place.start
        kept = going[self.rows]
        self.rows = self.rows[kept]
        self.live, self.live_cache, count = self.rows, self.cache, len(self.rows)  # those in the next pass
        self.open = torch.ones_like(self.live, dtype=torch.bool)  # whose canvas is not done
        if not count:
            return
        if not first and not kept.all():
            self.cache.batch_select_indices(kept)
        places = self.positions[self.rows, 0 if first else before - self.length : before]
        ids, mapping = self.network._prepare_encoder_inputs(
            input_ids=self.text[self.rows, :before],
            attention_mask=self.seen[self.rows, :before],
            encoder_position_ids=places,
            past_key_values=self.cache,
            is_prefill=first,
            canvas_length=self.length,
            batch_size=count,
        )
        self.network.model.encoder(
            input_ids=ids, attention_mask=mapping, past_key_values=self.cache, position_ids=places
        )
        with self._draws():
            self.canvas, self.conditioning, _, _ = self.network._prepare_denoiser_inputs(
                decoder_attention_mask=None,
                past_key_values=self.cache,
                sampler=self.sampler,
                diffusion_stopping_criteria=self.stopping,
                batch_size=count,
                device=self.text.device,
                model_kwargs={},
            )
        wanted = self._wanted()
        self.canvas = self.draft = torch.where(wanted == FREE, self.canvas, wanted)
        self.mapping = self._mask()

    def denoise(self, going: torch.Tensor, left: int) -> Denoised | None:
        """One step for the rows still going ``[batch]`` whose canvas is not done; None where there are none.

        left : steps of this canvas that are left, this one included.
        """
        self._keep(self.open & going[self.live])
        if not len(self.live):
            return None
        output, states = self._pass()
        with self._draws():
            self.canvas, self.draft, self.conditioning, over = self.network._denoising_step(
                decoder_forward=lambda **_: output,
                current_canvas=self.canvas,
                argmax_canvas=self.draft,
                input_ids=self.text[self.live, : self.prompt + self.place.start],
                decoder_position_ids=None,
                self_conditioning_logits=self.conditioning,
                mask_mapping=self.mapping,
                past_key_values=self.live_cache,
                finished_denoising=torch.zeros_like(self.live, dtype=torch.bool),
                cur_step=left,
                sampler=self.sampler,
                logits_processor=self.processors,
                diffusion_stopping_criteria=self.stopping,
            )
        over = torch.ones_like(over) if left == 1 else over
        self.drafts[self.live, self.place] = self.draft
        self.open, ended = ~over, torch.zeros_like(over)
        if over.any():
            ended[over] = self._finish(self.live[over])
        return Denoised(self.live, states, over, ended)

    def _pass(self) -> tuple[Any, list[torch.Tensor]]:
        """The network over the canvases: its output, forced tokens made certain, and the states of each layer."""
        with self.model.states(self.layers) as states:
            output = self.network(
                decoder_input_ids=self.canvas,
                self_conditioning_logits=self.conditioning,
                decoder_attention_mask=self.mapping,
                past_key_values=self.live_cache,
                decoder_position_ids=self.positions[self.live, self.prompt :][:, self.place],
            )
        wanted = self._wanted()
        if (fixed := wanted != FREE).any():
            output.logits = output.logits.masked_fill(fixed.unsqueeze(-1), -torch.inf)
            output.logits[fixed, wanted[fixed]] = 0.0
        return output, states

    def _finish(self, rows: torch.Tensor) -> torch.Tensor:
        """Fill up behind the end of sequence in canvases that are done; bool ``[n]``, whose response is over."""
        ended: torch.Tensor
        text, ended = self.network._finalize_canvas(
            input_ids=self.text[rows, : self.prompt + self.place.stop],
            finished_sequences=torch.zeros_like(rows, dtype=torch.bool),
            generation_config=self.config,
            stopping_criteria=self.endings,
            canvas_length=self.length,
            eos_tensor=self.eos,
        )
        self.text[rows, : self.prompt + self.place.stop] = text
        return ended

    def _keep(self, kept: torch.Tensor) -> None:
        """Leave rows out of the passes over this canvas; the whole cache stays for the next one."""
        if kept.all():
            return
        self.live, self.open = self.live[kept], self.open[kept]
        self.canvas, self.draft = self.canvas[kept], self.draft[kept]
        if not len(self.live):
            return
        self.conditioning = None if self.conditioning is None else self.conditioning[kept]
        if self.stopping is not None and self.stopping.argmax_canvas_history is not None:
            self.stopping.argmax_canvas_history = self.stopping.argmax_canvas_history[:, kept]
        self.live_cache = copy(self.live_cache)
        self.live_cache.layers = [copy(layer) for layer in self.live_cache.layers]
        self.live_cache.batch_select_indices(kept)
        self.mapping = self._mask()

    def _mask(self) -> Any:
        """The attention masks of the next pass: what `generate` makes, but of floats, which eager attention needs."""
        return self.network.model.decoder.create_diffusion_decoder_attention_mask(
            config=self.network.config,
            inputs_embeds=self.canvas.new_empty((*self.canvas.shape, 0), dtype=self.network.dtype),
            past_key_values=self.live_cache,
            decoder_attention_mask=self.seen[self.live, : self.prompt + self.place.stop],
        )

    def _wanted(self) -> torch.Tensor:
        """Forced tokens of the current canvases, int64 ``[live, canvas]``."""
        return self.forced[self.live, self.place]

    def _draws(self) -> RowDraws:
        return RowDraws([self.generators[row] for row in self.live.tolist()])
