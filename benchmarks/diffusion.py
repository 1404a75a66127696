"""What masked diffusion costs: the official sampling loop's way of working and `MaskedDiffusion`, same weights.

(official) one prompt at a time, logits at every position of prompt and response, confidences from a float64
    softmax over all of them, the final states of every position kept at every step: the way of working of
    LLaDA's `generate` under the code released with arXiv 2602.02600, written anew here;
(demur) `MaskedDiffusion.steps` over the whole batch.

The model is random and LLaDA-shaped: a vocabulary of 126,464, width 160, 24 blocks, tied embeddings, 30
million parameters, so that the head dominates as it does not in an 8B model. Every run has a process of its
own; the ways take turns, ratios are taken within a round, and the median over rounds is reported. Memory is
the peak resident size while generating, above what the loaded model held before (and whole).

`--kind blocks` compares the ways of block diffusion instead, which `blocks.py` describes, and `--kind dream` those of
Dream, which `dream.py` describes.

    python benchmarks/diffusion.py [--rounds 5] [--batch-sizes 1 8] [--steps 32] [--response-length 128]
    python benchmarks/diffusion.py --kind blocks --batch-sizes 8 --steps 32 --rounds 2
    python benchmarks/diffusion.py --kind dream
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors.torch import save_file

import blocks
import dream
from demur.models import Model, load
from demur.samplers import MaskedDiffusion
from machine import RESULTS, write_result

WIDTH, BLOCKS, HEADS, INNER, VOCABULARY, MASK = 160, 24, 5, 640, 126464, 126336


def write_model(folder: Path) -> int:
    """A random checkpoint in LLaDA's layout; returns its number of parameters."""
    generator = torch.Generator().manual_seed(0)
    config = {"model_type": "llada", "d_model": WIDTH, "n_heads": HEADS, "n_layers": BLOCKS, "mlp_hidden_size": INNER}
    config |= {"vocab_size": VOCABULARY, "block_type": "llama", "activation_type": "silu", "layer_norm_type": "rms"}
    config |= {"rope": True, "rope_theta": 500000.0, "include_bias": False, "weight_tying": True}
    shapes: dict[str, tuple[int, ...]] = {"wte": (VOCABULARY, WIDTH)}
    for block in range(BLOCKS):
        shapes |= {f"blocks.{block}.{name}": (WIDTH, WIDTH) for name in ("q_proj", "k_proj", "v_proj", "attn_out")}
        shapes |= {f"blocks.{block}.{name}": (INNER, WIDTH) for name in ("ff_proj", "up_proj")}
        shapes[f"blocks.{block}.ff_out"] = (WIDTH, INNER)
    weights = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    weights |= {
        f"blocks.{block}.{name}": torch.ones(WIDTH) for block in range(BLOCKS) for name in ("attn_norm", "ff_norm")
    }
    weights["ln_f"] = torch.ones(WIDTH)
    save_file({f"model.transformer.{name}.weight": one for name, one in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return sum(one.numel() for one in weights.values())


def official_way(model: Model, prompts: torch.Tensor, steps: int, response: int) -> list[list[int]]:
    found = []
    for prompt in prompts:
        x = torch.cat([prompt, torch.full((response,), MASK)]).unsqueeze(0)
        kept = []
        for step in range(steps):
            with torch.no_grad():
                output = model.network(input_ids=x, output_hidden_states=True)
            kept.append(output.hidden_states[-1])
            guess = output.logits.argmax(dim=-1)
            share = torch.softmax(output.logits.to(torch.float64), dim=-1)
            confidence = share.gather(-1, guess.unsqueeze(-1)).squeeze(-1)
            confidence = torch.where(x == MASK, confidence, -torch.inf)
            count = response // steps + (step < response % steps)
            chosen = confidence[0].topk(count).indices
            x[0, chosen] = guess[0, chosen]
        torch.stack([states[0, len(prompt) :].mean(dim=0) for states in kept])
        found.append(x[0, len(prompt) :].tolist())
    return found


def demur_way(model: Model, prompts: torch.Tensor, steps: int, response: int) -> list[list[int]]:
    return blocks.tokens_of(MaskedDiffusion(steps=steps, response_length=response), model, prompts)


WAYS = {
    "masked": {"official": official_way, "demur": demur_way},
    "dream": {"official": dream.official_way, "demur": dream.demur_way},
    "blocks": {"official": blocks.official_way, "cached": blocks.cached_way, "demur": blocks.demur_way},
}
MODELS = {
    "masked": {"width": WIDTH, "blocks": BLOCKS, "vocabulary": VOCABULARY},
    "dream": {"width": dream.WIDTH, "blocks": dream.LAYERS, "vocabulary": dream.VOCABULARY},
    "blocks": {"width": blocks.WIDTH, "blocks": blocks.LAYERS, "vocabulary": blocks.VOCABULARY},
}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """One way on one batch size, in this process."""
    model = load(given.model, device="cpu")
    run = WAYS[given.kind][given.way]
    generator = torch.Generator().manual_seed(1)
    highest = MODELS[given.kind]["vocabulary"] - 464  # no special tokens
    prompts = torch.randint(0, highest, (given.batch_size, given.prompt_length), generator=generator)
    run(model, prompts[:1, :8], 1, 8)  # warm up
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    started, worked = time.perf_counter(), time.process_time()
    tokens = run(model, prompts, given.steps, given.response_length)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    peak = _status("VmHWM")
    found = {"seconds": seconds, "cpu_seconds": cpu, "added_mb": peak - before, "peak_mb": peak}
    # With what loading took, as the system counts it.
    return {**found, "process_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "tokens": tokens}


def _status(name: str) -> float:
    """A line of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def in_a_process(given: argparse.Namespace, model: Path, way: str, batch_size: int) -> dict[str, Any]:
    arguments = [
        "--kind",
        given.kind,
        "--way",
        way,
        "--model",
        str(model),
        "--batch-size",
        str(batch_size),
        "--steps",
        str(given.steps),
    ]
    arguments += ["--response-length", str(given.response_length), "--prompt-length", str(given.prompt_length)]
    environment = os.environ | {"OMP_NUM_THREADS": str(given.threads)}
    done = subprocess.run([sys.executable, __file__, *arguments], env=environment, check=True, capture_output=True)
    result: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    return result


def compared(given: argparse.Namespace, model: Path, batch_size: int) -> dict[str, Any]:
    ways = list(WAYS[given.kind])
    rounds = []
    for _ in range(given.rounds):
        found = {way: in_a_process(given, model, way, batch_size) for way in ways}
        tokens = [list(chain.from_iterable(found[way].pop("tokens"))) for way in ways]
        same = [all(one == other[0] for one in other) for other in zip(*tokens, strict=True)]
        rounds.append({**found, "same_tokens": sum(same) / len(same)})
        print(batch_size, rounds[-1], flush=True)
    numbers = ("seconds", "cpu_seconds", "added_mb", "peak_mb", "process_mb")
    against: dict[str, Any] = {}
    for way in ways[:-1]:

        def ratio(name: str, way: str = way) -> float:
            return median(one[way][name] / one["demur"][name] for one in rounds)

        against[way] = {
            "times_faster": ratio("seconds"),
            "times_less_cpu": ratio("cpu_seconds"),
            "memory_share": 1 / ratio("added_mb"),
            "whole_memory_share": 1 / ratio("process_mb"),
        }
    return {
        "batch_size": batch_size,
        **against.pop("official"),
        **{f"against_{way}": found for way, found in against.items()},
        **{f"{way}_{name}": median(one[way][name] for one in rounds) for way in ways for name in numbers},
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=WAYS, default="masked")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--response-length", type=int, default=128)
    parser.add_argument("--prompt-length", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="by default diffusion.json or diffusion-KIND.json among the results")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        print(json.dumps(measure(given)))
        return
    with tempfile.TemporaryDirectory() as folder:
        write = {"masked": write_model, "dream": dream.write_model, "blocks": blocks.write_model}[given.kind]
        parameters = write(Path(folder))
        results = [compared(given, Path(folder), size) for size in given.batch_sizes]
    settings = {name: getattr(given, name) for name in ("steps", "response_length", "prompt_length", "rounds")}
    model = {"parameters": parameters, **MODELS[given.kind]}
    out = given.out or RESULTS / ("diffusion.json" if given.kind == "masked" else f"diffusion-{given.kind}.json")
    write_result(out, {"model": model, **settings, "threads_used": given.threads, "results": results})


if __name__ == "__main__":
    main()
