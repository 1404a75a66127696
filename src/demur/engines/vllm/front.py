"""The guard in vLLM's server process: tokens wait for their verdict, and answers say what the guards said.

In: outputs of the engine's process. Out: the same outputs without tokens that no look has passed, `content_filter` as
the reason of an answer that a guard ended, and `moderation` in chat completions.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from typing import Any

from demur.engines.vllm.held import Held
from demur.engines.vllm.messages import Said, decode
from demur.engines.vllm.settings import Settings
from demur.serve.guards import Watched
from demur.serve.verdicts import moderation_of, numbers_of

MOST = 4096
"""Finished answers whose verdicts wait to be read; the oldest go first, those of clients that went away."""


class Front:
    """What the guards said of each request, from the engine's outputs to the client's answer."""

    def __init__(self, settings: Settings, watched: Sequence[Watched]) -> None:
        self._hold = settings.hold if settings.mode == "block" else "none"
        self._watched = watched
        self._finished: OrderedDict[str, dict[int, Said]] = OrderedDict()

    def before(self, states: dict[str, Any], outputs: Sequence[Any]) -> None:
        """Read the verdicts out of the engine's outputs, and hold tokens back; before vLLM turns them into text.

        states : vLLM's `RequestState` by request.
        """
        for output in outputs:
            state, said = states.get(output.request_id), decode(output.stop_reason)
            if state is None or said is None:
                continue
            output.stop_reason = said.own
            state.demur_said = said
            if not hasattr(state, "demur_held"):
                state.demur_held = Held(self._hold)
            state.demur_held.release(output, said)

    def after(self, state: Any, completion: Any) -> Any:
        """Say in a completion that a guard ended it, and keep what was said for the answer."""
        said: Said | None = getattr(state, "demur_said", None)
        if said is None or completion.finish_reason is None:
            return completion
        if said.stopped:
            completion.finish_reason = "content_filter"
        request = (state.parent_req or state).external_req_id
        self._finished.setdefault(request, {})[completion.index] = said
        while len(self._finished) > MOST:
            self._finished.popitem(last=False)
        return completion

    def answered(self, request: str, response: Any) -> Any:
        """A chat completion with `moderation`, and in each choice the numbers as `demur`."""
        found = self._finished.pop(request, {})
        if found and hasattr(response, "choices"):
            for choice in response.choices:
                if choice.index in found:
                    choice.demur = self._numbers(found[choice.index])
            response.moderation = self._moderation([found[place] for place in sorted(found)], response.model)
        return response

    async def streamed(self, request: str, lines: AsyncIterator[str]) -> AsyncIterator[str]:
        """A stream of chat completion chunks, `moderation` in the last one of each choice.

        vLLM leaves that chunk out for a choice of which nothing was shown; it is added.
        """
        head: dict[str, Any] = {}
        told: set[int] = set()
        async for line in lines:
            chunk = json.loads(line.removeprefix("data: ")) if line.startswith("data: {") else {}
            if chunk.get("choices"):
                head = head or {name: chunk[name] for name in ("id", "object", "created", "model")}
                told |= {choice["index"] for choice in chunk["choices"] if choice.get("finish_reason")}
                yield self._line(request, line)
                continue
            found = self._finished.get(request, {})
            for place in sorted(set(found) - told) if head else ():
                told.add(place)
                choice = {"index": place, "delta": {}, "finish_reason": "content_filter"}
                yield self._line(request, f"data: {json.dumps({**head, 'choices': [choice]})}\n\n")
            yield line
        self._finished.pop(request, None)

    def _line(self, request: str, line: str) -> str:
        if '"finish_reason":"' not in line and '"finish_reason": "' not in line:
            return line
        chunk, found = json.loads(line.removeprefix("data: ")), self._finished.get(request, {})
        ended = [choice for choice in chunk.get("choices", ()) if choice["index"] in found]
        for choice in ended:
            choice["demur"] = self._numbers(found[choice["index"]])
        if ended:
            chunk["moderation"] = self._moderation([found[choice["index"]] for choice in ended], chunk["model"])
        return f"data: {json.dumps(chunk)}\n\n"

    def _numbers(self, said: Said) -> dict[str, Any]:
        stops = [verdict.stopped_at for verdict in said.verdicts.values() if verdict.stopped_at]
        return {"stopped_at": min(stops, default=0), "guards": numbers_of(self._watched, said.verdicts)}

    def _moderation(self, said: Sequence[Said], model: str) -> dict[str, Any]:
        return moderation_of(self._watched, [one.verdicts for one in said], model).model_dump()
