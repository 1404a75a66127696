"""Run by torchrun in every process of a group: records with a split network and says what this process saw."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import demur
from demur import InputError, record
from demur.recording import recorder
from demur.recording.compaction import Compaction

PROMPTS = ["tell me about tea", "how do i make bombs and " * 3, "rain", "write a poem", "who are you"]
SETTINGS: dict[str, Any] = {"steps": 6, "layers": ("first", "last"), "batch_size": 2}


def seen(job: Any) -> str:
    """The error that a job ends with, and nothing where it ends well."""
    try:
        job()
    except InputError as error:
        return str(error)
    return ""


def main(folder: Path) -> None:
    """A recording that is broken off and goes on, one that is refused, and a sampled one."""
    rank = int(os.environ["RANK"])
    model = demur.load("demur/tiny-ar", tp_plan="auto")
    batches, write = recorder.batches, Compaction.write
    passes: list[int] = []

    def counted(*arguments: Any, **more: Any) -> Iterator[Any]:
        for batch in batches(*arguments, **more):
            passes.append(len(batch.rows))
            yield batch

    def full(self: Any, *arguments: Any) -> None:
        if len(passes) > 1:
            raise InputError("the disk is full")
        write(self, *arguments)

    recorder.batches = counted  # type: ignore[assignment]
    Compaction.write = full  # type: ignore[method-assign]
    said = {"broken": seen(lambda: record(model, PROMPTS, **SETTINGS, out=folder / "r"))}
    Compaction.write = write  # type: ignore[method-assign]
    passes.clear()
    recording = record(model, PROMPTS, **SETTINGS, out=folder / "r")
    found: dict[str, Any] = {"rest": list(passes), "rows": len(recording), "first": float(recording.phi[0, 0, 0, 0])}
    said["other"] = seen(lambda: record(model, PROMPTS[:1], **SETTINGS, out=folder / "r"))
    said["nowhere"] = seen(lambda: record(model, PROMPTS, **SETTINGS))
    said["study"] = seen(lambda: demur.check(model))
    said["differ"] = seen(lambda: record(model, PROMPTS[: 2 + rank], **SETTINGS, out=folder / "differ"))
    drawn = demur.samplers.Autoregressive(steps=6, temperature=1.0, seed=3)
    record(model, PROMPTS, drawn, layers=("last",), batch_size=5, out=folder / "drawn")
    if rank == 0:  # alone: nothing that one process asks for may wait for the others
        found["fingerprint"] = model.fingerprint
        found["former"] = model.former_fingerprint
    weight = model.network.get_output_embeddings().weight
    found["share"] = [weight.to_local().shape[0], weight.shape[0]]
    with torch.no_grad():
        weight.to_local().mul_(2)
    said["edited"] = seen(lambda: model.fingerprint)
    (folder / f"{rank}.json").write_text(json.dumps({**found, **said}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
