"""The plugin: `DEMUR_GUARD=DIR vllm serve MODEL` is guarded, or does not start.

In: vLLM's entry points, which it calls in each of its processes. Out: vLLM with the guard in its worker, scheduler,
output and chat completions. Nothing is changed where DEMUR_GUARD is not set. This module imports little, as vLLM goes
on without a plugin that cannot be imported: what can fail, fails when it is called, and ends vLLM.
"""

from __future__ import annotations

import os
from typing import Any

_done = False


def register() -> None:
    """The entry point of `vllm.general_plugins`."""
    global _done
    if _done or not os.environ.get("DEMUR_GUARD"):
        return
    _done = True
    from demur.engines.vllm.environment import prepare
    from demur.engines.vllm.patches import patch
    from demur.engines.vllm.settings import Settings

    prepare()
    Settings.read()
    patch()


class Endpoints:
    """The entry point of `vllm.endpoint_plugins`: `GET /demur/guards` says which guards watch, and how.

    vLLM loads it where VLLM_PLUGINS names demur; demur adds it by itself where a guard is asked for.
    """

    name = "demur"
    required_tasks = ("generate",)

    def attach_router(self, app: Any) -> None:
        from demur.engines.vllm.patches import facts

        app.add_api_route("/demur/guards", facts, methods=["GET"], name="demur guards")

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Nothing: the guards are in the engine already."""
