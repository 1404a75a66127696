"""What recording costs: the released code's way, plain generate and demur.record side by side.

(a) one prompt at a time, no KV cache, every layer's states of every position kept at every step: the way of
    working of the code released with arXiv 2602.02600, written anew here;
(b) `generate` of transformers on the same batches as (c), tokenization and decoding included;
(c) `demur.record`, tokenization, decoding and writing to disk included.

In every round b and c run one after the other, the first of one round being the second of the next, and in the first
few rounds (a) on a few of the prompts; ratios are taken within a round, and the median over rounds is reported.

    python benchmarks/recording.py MODEL PROMPTS.jsonl [--count 16] [--batch-size 16] [--rounds 8]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import torch

import demur
from demur.models import Model
from demur.prompts import Prompt
from machine import RESULTS, write_result


def released_way(model: Model, prompts: Sequence[Prompt], steps: int) -> None:
    for prompt in prompts:
        ids = torch.tensor([model.encode(prompt.prompt or "")], device=model.device)
        kept = []
        for _ in range(steps):
            with torch.no_grad():
                output = model.network(ids, use_cache=False, output_hidden_states=True)
            kept.append(torch.stack(output.hidden_states))
            token = output.logits[:, -1].argmax(dim=-1, keepdim=True)
            ids = torch.cat([ids, token], dim=1)
            if token.item() in model.eos_token_ids:
                break
        model.decode(ids[0].tolist())


def plain_generate(model: Model, prompts: Sequence[Prompt], steps: int, batch_size: int) -> None:
    encoded = sorted((model.encode(prompt.prompt or "") for prompt in prompts), key=len, reverse=True)
    for start in range(0, len(encoded), batch_size):
        batch = encoded[start : start + batch_size]
        inputs = model.tokenizer.pad({"input_ids": batch}, padding_side="left", return_tensors="pt").to(model.device)
        whole = model.network.generate(**inputs, max_new_tokens=steps, do_sample=False)
        for tokens in whole[:, inputs["input_ids"].shape[1] :].tolist():
            model.decode(tokens)


def recorded(model: Model, prompts: Sequence[Prompt], steps: int, batch_size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        demur.record(model, prompts, steps=steps, batch_size=batch_size, out=Path(folder) / "r")


def seconds(function: object, *arguments: object) -> float:
    started = time.perf_counter()
    function(*arguments)  # type: ignore[operator]
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("prompts")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--released-count", type=int, default=2, help="prompts a round for (a)")
    parser.add_argument("--released-rounds", type=int, default=3, help="rounds in which (a) is run")
    parser.add_argument("--out", type=Path, default=RESULTS / "recording.json")
    given = parser.parse_args()
    model = demur.load(given.model)
    prompts = demur.read_prompts(given.prompts, limit=given.count)
    few = prompts[: given.released_count]
    rounds: list[dict[str, float]] = []
    recorded(model, prompts[: given.batch_size], given.steps, given.batch_size)  # warm up
    for number in range(given.rounds):
        ways = {"generate": plain_generate, "record": recorded}
        names = list(ways) if number % 2 == 0 else list(ways)[::-1]
        spent = {name: seconds(ways[name], model, prompts, given.steps, given.batch_size) for name in names}
        rounds.append({name: spent[name] / len(prompts) for name in ways})
        if number < given.released_rounds:
            rounds[-1]["released"] = seconds(released_way, model, few, given.steps) / len(few)
        print(rounds[-1], flush=True)
    released = [one for one in rounds if "released" in one]
    write_result(
        given.out,
        {
            "prompts": len(prompts),
            "steps": given.steps,
            "batch_size": given.batch_size,
            "model": Path(given.model).name,
            "seconds_per_prompt_by_round": rounds,
            "record_seconds_per_prompt": median(one["record"] for one in rounds),
            "generate_seconds_per_prompt": median(one["generate"] for one in rounds),
            "released_seconds_per_prompt": median(one["released"] for one in released),
            "record_over_generate": median(one["record"] / one["generate"] for one in rounds),
            "released_over_record": median(one["released"] / one["record"] for one in released),
        },
    )


if __name__ == "__main__":
    main()
