"""What every benchmark writes beside its numbers: the command, the machine, the versions, the date."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": gpu,
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("demur", "torch", "transformers", "numpy", "scikit-learn")},
        "threads": torch.get_num_threads(),
    }


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write a result with the command that made it, and print it."""
    command = shlex.join(
        ["python", f"benchmarks/{Path(sys.argv[0]).name}", *(_without_folders(text) for text in sys.argv[1:])]
    )
    whole = {"command": command, "date": datetime.date.today().isoformat(), "machine": machine(), **result}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=2) + "\n")
    print(json.dumps(whole, indent=2))


def _without_folders(argument: str) -> str:
    flag, equals, value = argument.rpartition("=")
    return flag + equals + Path(value).name if "/" in value else argument


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
