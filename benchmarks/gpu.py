"""What recording costs at the sizes it is meant for: random weights of the shapes of real models.

Weights are made on the device, so nothing is downloaded; prompts are random token ids. For an autoregressive
model (Llama-3.1-8B) and a masked diffusion model (LLaDA-8B), in every round and in this order:

(plain) generation alone, in batches: `generate` of transformers; for diffusion the bare loop, with logits at
    masked positions only and no states kept;
(record) `demur.record` of the same prompts into a temporary folder;
(guarded) the same, then the signal and a guard's verdict on every prompt, read back from that folder;
(released) the way of working of the code released with arXiv 2602.02600, written anew here, on a few of the
    prompts, one at a time: every layer's states of every position kept at every step, without a KV cache; for
    diffusion the official loop, with logits and float64 confidences at every position.

Ratios are taken within a round and the median over rounds is reported. The text such weights give means
nothing, and no token ends a response, so every way does the whole work.

    python benchmarks/gpu.py [--shapes 8b] [--batch-size 16] [--prompts 32] [--rounds 5]
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

import demur
from demur.models import Model, from_network, make_bidirectional
from demur.samplers import Sampler
from machine import RESULTS, write_result

WIDE = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32}
NARROW = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SHAPES: dict[str, dict[str, dict[str, int]]] = {
    "8b": {
        "autoregressive": WIDE | {"vocab_size": 128256, "intermediate_size": 14336, "num_key_value_heads": 8},
        "masked-diffusion": WIDE | {"vocab_size": 126464, "intermediate_size": 12288, "num_key_value_heads": 32},
    },
    "tiny": {
        "autoregressive": NARROW | {"vocab_size": 256, "num_key_value_heads": 1},
        "masked-diffusion": NARROW | {"vocab_size": 256, "num_key_value_heads": 2},
    },
}
"""The sizes of Llama-3.1-8B and LLaDA-8B, and of two networks that any machine runs."""
DTYPES = {"8b": torch.bfloat16, "tiny": torch.float32}
WAYS = ("plain", "record", "guarded", "released")
MB = 1 << 20


@dataclass(frozen=True)
class Work:
    """What every way is given."""

    model: Model
    sampler: Sampler
    prompts: list[list[int]]
    batch_size: int
    anchors: demur.Anchors
    guard: demur.SRIGuard

    @property
    def steps(self) -> int:
        return self.sampler.step_count

    @property
    def response(self) -> int:
        return self.sampler.response_length

    def first(self, count: int) -> list[torch.Tensor]:
        """The first prompts, each ``[1, prompt]`` on the device."""
        return [torch.tensor([prompt], device=self.model.device) for prompt in self.prompts[:count]]


def make_model(family: Any, sizes: dict[str, int], dtype: torch.dtype, device: torch.device) -> Model:
    """A model of random weights, made where it is used."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    config = LlamaConfig(
        **sizes,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.device(device):
        network = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if family == "autoregressive":
        return from_network(network, name="random weights", content="random weights")
    mask = sizes["vocab_size"] - 1
    return from_network(
        make_bidirectional(network), name="random", content="random weights", family=family, mask_token_id=mask
    )


def make_work(model: Model, given: argparse.Namespace) -> Work:
    """Prompts, sampler, anchors and guard for a model; the anchors are random, which costs what real ones cost."""
    rng = np.random.default_rng(0)
    vocabulary = int(model.config.vocab_size)
    prompts = rng.integers(1, vocabulary - 1, (given.prompts, given.prompt_length)).tolist()
    length = {"response_length": given.response_length} if model.family == "masked-diffusion" else {}
    anchors = rng.standard_normal((2, given.steps, 1, model.width)).astype(np.float32)
    harmless = 0.9 + 0.03 * rng.standard_normal((400, given.steps))
    return Work(
        model=model,
        sampler=model.default_sampler(steps=given.steps, **length),
        prompts=prompts,
        batch_size=given.batch_size,
        anchors=demur.Anchors(anchors[0], anchors[1], layers=(model.layer_count,)),
        guard=demur.SRIGuard(random_state=0, max_iter=20).fit(harmless[:200], calibration=harmless[200:]),
    )


def batches(work: Work) -> list[torch.Tensor]:
    """The prompts in batches, each ``[batch, prompt]`` on the device."""
    return list(torch.tensor(work.prompts, device=work.model.device).split(work.batch_size))


def plain_autoregressive(work: Work) -> torch.Tensor:
    """The tokens generated, ``[prompts, response]``."""
    found = []
    for ids in batches(work):
        mask = torch.ones_like(ids)
        whole = work.model.network.generate(ids, attention_mask=mask, max_new_tokens=work.steps, do_sample=False)
        found.append(whole[:, ids.shape[1] :])
    return torch.cat(found).cpu()


@torch.no_grad()
def plain_diffusion(work: Work) -> torch.Tensor:
    """The tokens generated, ``[prompts, response]``."""
    head, mask = work.model.network.lm_head, work.model.mask_token_id
    found = []
    for ids in batches(work):
        canvas = torch.nn.functional.pad(ids, (0, work.response), value=mask)
        response = canvas[:, ids.shape[1] :]
        for step in range(work.steps):
            states = work.model.decoder(input_ids=canvas).last_hidden_state[:, ids.shape[1] :]
            masked = response == mask
            logits = head(states[masked]).float()
            confidence = torch.full(response.shape, -torch.inf, device=ids.device)
            confidence[masked] = logits.amax(dim=-1) - logits.logsumexp(dim=-1)
            guess = response.clone()
            guess[masked] = logits.argmax(dim=-1)
            chosen = confidence.topk(share(work, step), dim=1).indices
            response.scatter_(1, chosen, guess.gather(1, chosen))
        found.append(response)
    return torch.cat(found).cpu()


def share(work: Work, step: int) -> int:
    """How many positions a diffusion step commits."""
    return work.response // work.steps + (step < work.response % work.steps)


def record(work: Work) -> None:
    with tempfile.TemporaryDirectory() as folder:
        recorded(work, folder)


def guarded(work: Work) -> float:
    """Seconds of the signal and the guard alone."""
    with tempfile.TemporaryDirectory() as folder:
        recording = recorded(work, folder)
        started = time.perf_counter()
        work.guard.predict(work.anchors.signal(recording))
        return time.perf_counter() - started


def recorded(work: Work, folder: str) -> demur.Recording:
    rows = [{"id": str(place), "token_ids": ids} for place, ids in enumerate(work.prompts)]
    return demur.record(work.model, rows, work.sampler, batch_size=work.batch_size, out=Path(folder) / "r")


@torch.no_grad()
def released_autoregressive(work: Work, count: int) -> None:
    for ids in work.first(count):
        kept = []
        for _ in range(work.steps):
            output = work.model.network(ids, use_cache=False, output_hidden_states=True)
            kept.append(torch.stack(output.hidden_states))
            ids = torch.cat([ids, output.logits[:, -1:].argmax(dim=-1)], dim=1)
        torch.stack([states[-1, 0, -1] for states in kept]).cpu()


@torch.no_grad()
def released_diffusion(work: Work, count: int) -> None:
    mask = work.model.mask_token_id
    for ids in work.first(count):
        x = torch.nn.functional.pad(ids, (0, work.response), value=mask)
        kept = []
        for step in range(work.steps):
            output = work.model.network(input_ids=x, output_hidden_states=True)
            kept.append(output.hidden_states[-1])
            guess = output.logits.argmax(dim=-1)
            chances = torch.softmax(output.logits.to(torch.float64), dim=-1)
            confidence = chances.gather(-1, guess.unsqueeze(-1)).squeeze(-1)
            confidence = torch.where(x == mask, confidence, -torch.inf)
            chosen = confidence[0].topk(share(work, step)).indices
            x[0, chosen] = guess[0, chosen]
        torch.stack([states[0, ids.shape[1] :].mean(dim=0) for states in kept]).cpu()


def measured(way: Callable[[Work], object], work: Work, prompts: int) -> dict[str, float]:
    """One run of a way: time and memory, and speed in tokens and in steps of a prompt."""
    peak = Peak(work.model.device)
    started = time.perf_counter()
    result = way(work)
    if work.model.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - started
    found = {
        "seconds_per_prompt": seconds / prompts,
        "tokens_per_second": prompts * work.response / seconds,
        "steps_per_second": prompts * work.steps / seconds,
        **peak.read(),
    }
    return {**found, "signal_and_guard_seconds_per_prompt": result / prompts} if isinstance(result, float) else found


class Peak:
    """The most memory held from its making on: the device's for CUDA, the process's elsewhere."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated() / MB
        else:
            Path("/proc/self/clear_refs").write_text("5")
            self.before = _status("VmRSS")

    def read(self) -> dict[str, float]:
        """The peak in MB, and what of it came on top of what was held before."""
        peak = torch.cuda.max_memory_allocated() / MB if self.cuda else _status("VmHWM")
        return {"peak_mb": peak, "added_mb": peak - self.before}


def _status(name: str) -> float:
    """A line of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def family_result(family: str, given: argparse.Namespace) -> dict[str, Any]:
    """All rounds of one family."""
    sizes = SHAPES[given.shapes][family]
    model = make_model(family, sizes, DTYPES[given.shapes], torch.device(given.device))
    work = make_work(model, given)
    autoregressive = family == "autoregressive"
    few = min(given.released_prompts, given.prompts)
    released = released_autoregressive if autoregressive else released_diffusion
    ways: dict[str, tuple[Callable[[Work], object], int]] = {
        "plain": (plain_autoregressive if autoregressive else plain_diffusion, given.prompts),
        "record": (record, given.prompts),
        "guarded": (guarded, given.prompts),
        "released": (lambda work: released(work, few), few),
    }
    rounds = []
    for number in range(given.rounds + 1):  # the first warms up and is not kept
        found = {name: measured(ways[name][0], work, ways[name][1]) for name in WAYS}
        print(family, number, found, flush=True)
        rounds.append(found)
    parameters = sum(one.numel() for one in model.network.parameters())
    return {"shape": sizes, "parameters": parameters, "sampler": work.sampler.describe(), **summary(rounds[1:])}


def summary(rounds: Sequence[dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Medians over rounds: of every number, and of the ratios taken within a round."""

    def ratio(way: str, other: str, name: str = "seconds_per_prompt") -> float:
        return median(one[way][name] / one[other]["seconds_per_prompt"] for one in rounds)

    return {
        "ways": {way: {name: median(one[way][name] for one in rounds) for name in rounds[0][way]} for way in rounds[0]},
        "record_overhead_percent": 100 * (ratio("record", "plain") - 1),
        "guarded_overhead_percent": 100 * (ratio("guarded", "plain") - 1),
        "signal_and_guard_percent": 100 * ratio("guarded", "plain", "signal_and_guard_seconds_per_prompt"),
        "released_over_record": ratio("released", "record"),
        "rounds": list(rounds),
    }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", choices=SHAPES, default="8b")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--prompt-length", type=int, default=64)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--response-length", type=int, default=128, help="of the diffusion model")
    parser.add_argument("--released-prompts", type=int, default=1, help="prompts a round for (released)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    families = {}
    for family in SHAPES[given.shapes]:
        families[family] = family_result(family, given)
        gc.collect()  # the next family's weights need the room
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    names = ("shapes", "device", "batch_size", "prompts", "prompt_length", "released_prompts")
    settings = {name: getattr(given, name) for name in names}
    dtype = str(DTYPES[given.shapes]).removeprefix("torch.")
    write_result(given.out, {**settings, "dtype": dtype, "rounds": given.rounds, "families": families})


if __name__ == "__main__":
    main()
