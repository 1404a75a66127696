"""``python -m demur.checks.killed``: a recording that is killed by SIGKILL in the middle of a batch.

In: a JSON task on stdin (see `resume`). Out: a folder with whole batches, and nothing else: the process is gone at
once, as in a power cut, with no chance to tidy up.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any


def main() -> None:
    """Load, record and die."""
    import torch

    import demur
    from demur import samplers
    from demur.checks.resume import BATCH, Killed, dying

    task: dict[str, Any] = json.load(sys.stdin)
    torch.set_num_threads(task["threads"])
    sampler = getattr(samplers, task["sampler"])(**task["arguments"])
    prompts = [{"id": str(place), "token_ids": row} for place, row in enumerate(task["rows"])]
    try:
        demur.record(
            demur.load(**task["load"]),
            prompts,
            dying(sampler, at_death=lambda: os.kill(os.getpid(), signal.SIGKILL)),
            layers=task["layers"],
            batch_size=BATCH,
            out=task["out"],
            progress=False,
        )
    except Killed:
        sys.exit("SIGKILL had no effect")


if __name__ == "__main__":
    main()
