"""The row in which the code that comes with a checkpoint is the judge of demur's own loading of it.

In: a bench, and whether that code may run. Out: the largest difference of logits between the official network and
demur's over the same canvas, or why it was not run. Remote code is somebody's code, so it is off unless asked for, and
it often does not run with a newer transformers; neither is a fault of the model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from demur.checks.bench import SHARED, Bench
from demur.checks.clean import clean_pass
from demur.checks.result import Outcome, Row
from demur.checks.weights import checkpoint_folder

NAME, MEASURED = "official code", "logits of the checkpoint's own code over prompt and canvas"
CLASSES = ("AutoModelForCausalLM", "AutoModel")


def official_row(bench: Bench, *, allowed: bool) -> Row:
    """demur's logits against those of the official network."""
    folder = checkpoint_folder(bench.model)
    named = _named_class(folder)
    if folder is None or named is None:
        return Row(NAME, MEASURED, outcome="not run", note="the checkpoint brings no code of its own")
    if not allowed:
        return Row(NAME, MEASURED, outcome="not run", note="give --trust-remote-code to run the checkpoint's code")
    ids = list(bench.rows[SHARED][0])
    if bench.model.mask_token_id is not None:
        ids += [bench.model.mask_token_id] * bench.sampler.response_length
    try:
        theirs = _official_logits(bench, folder, named, ids)
    except Exception as error:  # whatever goes wrong in somebody's code
        reason = (str(error).strip().splitlines() or [""])[0]
        return Row(NAME, MEASURED, outcome="not run", note=f"it does not run here: {type(error).__name__}: {reason}")
    mine = clean_pass(bench.model, ids, [bench.model.layer_count], kept=len(ids)).logits
    width = min(mine.shape[-1], theirs.shape[-1])
    distance = bench.tolerance.distance(mine[:, :width].numpy(), theirs[:, :width].numpy())
    same = float((mine.argmax(dim=-1) == theirs.argmax(dim=-1)).float().mean())
    value = f"max |Δlogit| {distance:.1e}; best token equal at {same:.1%} of {len(ids)} positions"
    limit = str(bench.tolerance).partition(";")[0].replace("Δphi", "Δlogit")
    outcome: Outcome = "ok" if distance <= bench.tolerance.states else "failed"
    return Row(NAME, MEASURED, value, limit, outcome, "", {"distance": distance, "same": same})


def _named_class(folder: Path | None) -> str | None:
    """Which of transformers' auto classes the checkpoint's config maps to code of its own."""
    if folder is None or not (folder / "config.json").is_file():
        return None
    mapped = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("auto_map") or {}
    return next((name for name in CLASSES if name in mapped), None)


@torch.no_grad()
def _official_logits(bench: Bench, folder: Path, named: str, ids: list[int]) -> torch.Tensor:
    """float32 ``[positions, vocabulary]``."""
    import transformers

    dtype = next(bench.model.network.parameters()).dtype
    loader: Any = getattr(transformers, named)
    network = loader.from_pretrained(folder, trust_remote_code=True, dtype=dtype).to(bench.model.device).eval()
    row = torch.tensor([ids], dtype=torch.int64, device=bench.model.device)
    logits: torch.Tensor = network(input_ids=row).logits
    return logits[0].float().cpu()
