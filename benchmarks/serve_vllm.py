"""What a guard costs `vllm serve`: tokens a second, guarded and not, and the time to the first text.

Two servers of the same model run beside each other, one under DEMUR_GUARD with a guard that looks four times and never
stops, so that both make the same answers. They are asked in turns (A B, B A, ...) at 1, 8 and 32 requests at once; who
is not asked waits. Processor seconds are those of all processes of the server, which other work on the machine disturbs
least.

    build/vllm/bin/python benchmarks/serve_vllm.py HuggingFaceTB/SmolLM2-135M-Instruct --steps 64
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai

import demur
from machine import RESULTS, write_result
from ray_engine import processor_seconds
from serve import compared, guarding

SERVER = (sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--max-num-seqs", "32")
"""What `vllm serve` runs."""
PATIENCE = 1200.0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=RESULTS / "serve-vllm.json")
    return parser.parse_args()


@contextmanager
def server(args: argparse.Namespace, log: Path, **environment: str) -> Iterator[tuple[int, openai.OpenAI]]:
    """A server that answers: its process and a client."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = ["--model", args.model, "--served-model-name", "model", "--port", str(port), "--dtype", args.dtype]
    said = {"VLLM_NO_USAGE_STATS": "1", "VLLM_ENGINE_READY_TIMEOUT_S": str(int(PATIENCE)), **environment}
    with log.open("wb") as file:
        command = [*SERVER, *asked, "--max-model-len", "512", "--enforce-eager"]
        process = subprocess.Popen(
            command, env={**os.environ, **said}, stdout=file, stderr=file, start_new_session=True
        )
    try:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0, timeout=PATIENCE)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                client.models.list()
                break
            except openai.APIError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the server did not start: {log.read_text()[-3000:]}") from None
                time.sleep(1)
        yield process.pid, client
    finally:
        process.terminate()
        process.wait(60)


def asked(client: openai.OpenAI, number: int, steps: int) -> tuple[int, float]:
    """One answer as a stream: its tokens, and the seconds to its first text."""
    began, first, tokens = time.perf_counter(), 0.0, 0
    stream = client.chat.completions.create(
        model="model",
        messages=[{"role": "user", "content": f"tell me about number {number}"}],
        max_tokens=steps,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    for chunk in stream:
        if not first and chunk.choices and chunk.choices[0].delta.content:
            first = time.perf_counter() - began
        tokens = chunk.usage.completion_tokens if chunk.usage else tokens
    return tokens, first


def timed(process: int, client: openai.OpenAI, at_once: int, steps: int) -> dict[str, float]:
    """Tokens a second of `at_once` requests, by the clock and by the processor; the median time to the first text."""
    clock, cpu = time.perf_counter(), sum(processor_seconds(process).values())
    with ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda number: asked(client, number, steps), range(at_once)))
    clock, cpu = time.perf_counter() - clock, sum(processor_seconds(process).values()) - cpu
    made = sum(tokens for tokens, _ in answers)
    first = statistics.median(seconds for _, seconds in answers)
    return {"tokens": made, "per_second": made / clock, "per_cpu_second": made / cpu, "first_text_seconds": first}


def main() -> None:
    args = parsed()
    model = demur.load(args.model, device="cpu", dtype=args.dtype)
    [watched] = guarding(model, args.steps)
    rounds: dict[int, list[dict[str, Any]]] = {at_once: [] for at_once in args.at_once}
    with tempfile.TemporaryDirectory() as folder:
        watched.guard.save_pretrained(Path(folder) / "guard", source=watched.source)
        log = Path(folder)
        with (
            server(args, log / "plain.txt") as plain,
            server(args, log / "guarded.txt", DEMUR_GUARD=str(Path(folder) / "guard")) as guarded,
        ):
            ways = {"plain": plain, "guarded": guarded}
            for at_once in args.at_once:  # warm
                [timed(*one, at_once, 8) for one in ways.values()]
            for number in range(args.rounds):
                for at_once, before in rounds.items():
                    turns = list(ways.items())[:: 1 if number % 2 == 0 else -1]
                    found: dict[str, Any] = {way: timed(*one, at_once, args.steps) for way, one in turns}
                    if found["plain"]["tokens"] != found["guarded"]["tokens"]:
                        raise SystemExit(f"guarded and unguarded made different numbers of tokens: {found}")
                    before.append({**found, "load": os.getloadavg()[0]})
                    print(f"{at_once} at once: {before[-1]}", file=sys.stderr, flush=True)
                facts = {"model": Path(args.model).name, "dtype": args.dtype, "steps": args.steps, "hold": "look"}
                write_result(
                    args.out,
                    {**facts, **{f"{key} at once": {**compared(one), "rounds": one} for key, one in rounds.items()}},
                )


if __name__ == "__main__":
    main()
