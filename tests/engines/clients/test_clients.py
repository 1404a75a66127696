"""Clients of other packages against a guarded server: each sees the stops of the recording, plain and streamed.

The code and the configuration are those of the page of recipes, as printed there.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving import Served, app_of, running, served

REQUESTS = int(os.environ.get("DEMUR_SERVE_REQUESTS", "48"))
"""200 in `make test-clients`."""
PAGE = Path(__file__).parents[3] / "docs" / "recipes.md"


@pytest.fixture(scope="module", params=["demur/tiny-ar", "demur/tiny-diffusion"])
def live(request: pytest.FixtureRequest) -> Iterator[tuple[Served, str]]:
    one = served(request.param)
    with running(app_of(one, slots=32)) as address:
        yield one, address


def printed(heading: str, language: str, address: str, model: str) -> list[str]:
    """The blocks of one section of the page, for a server at this address."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    return [block.replace("http://127.0.0.1:8000", address).replace("demur/tiny-ar", model) for block in blocks]


def answers(one: Served, ask: Callable[[str, bool], Awaitable[tuple[str, str]]]) -> list[tuple[int, str, str]]:
    """Row, text and finish reason of every request, 32 at once; every second one is streamed."""

    async def all_of_them() -> list[tuple[int, str, str]]:
        at_once = asyncio.Semaphore(32)

        async def answered(number: int) -> tuple[int, str, str]:
            row = number % len(one.prompts)
            async with at_once:
                return row, *await ask(one.prompts[row], number // len(one.prompts) % 2 == 1)

        return list(await asyncio.gather(*(answered(number) for number in range(REQUESTS))))

    return asyncio.run(all_of_them())


def require_the_stops_of_the_recording(one: Served, found: list[tuple[int, str, str]]) -> None:
    """Every request ends as its recording does, and no text is shown that the recording does not have."""
    assert len(found) == REQUESTS and 0 < sum(reason == "content_filter" for *_, reason in found) < REQUESTS
    for row, text, reason in found:
        final = one.recording.steps_text(row)[-1].committed
        assert (reason == "content_filter") == bool(one.stops[row])
        assert final.startswith(text) and (reason == "content_filter" or text == final)


def test_litellm(live: tuple[Served, str]) -> None:
    import litellm

    one, address = live
    router = litellm.Router(**yaml.safe_load(printed("LiteLLM", "yaml", address, one.model.name)[0]))

    async def ask(prompt: str, stream: bool) -> tuple[str, str]:
        messages = [{"role": "user", "content": prompt}]
        answer: Any = await router.acompletion(model="guarded", messages=messages, stream=stream)
        if not stream:
            return answer.choices[0].message.content or "", answer.choices[0].finish_reason
        text, reason = "", ""
        async for chunk in answer:
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
                reason = chunk.choices[0].finish_reason or reason
        return text, reason

    require_the_stops_of_the_recording(one, answers(one, ask))


def test_litellms_guardrail_blocks_what_the_guard_flags() -> None:
    from litellm.proxy.guardrails.guardrail_hooks.generic_guardrail_api import GenericGuardrailAPI

    one = served("demur/tiny-ar")
    with running(app_of(one)) as address:
        config = yaml.safe_load(printed("LiteLLM", "yaml", address, one.model.name)[1])
        params = config["guardrails"][0]["litellm_params"]
        guardrail = GenericGuardrailAPI(
            api_base=params["api_base"],
            guardrail_name="demur",
            headers={"authorization": f"Bearer {params['api_key']}"},
            unreachable_fallback=params["unreachable_fallback"],
            event_hook=params["mode"],
        )

        def is_blocked(row: int) -> bool:
            turns = [{"role": "user", "content": one.prompts[row]}]
            text = one.recording.steps_text(row)[-1].committed
            asked = guardrail.apply_guardrail(
                inputs={"texts": [text], "structured_messages": turns},
                request_data={"messages": turns, "model": "other"},
                input_type="response",
            )
            try:
                asyncio.run(asked)
            except Exception as error:
                return "step" in str(error)
            return False

        rows = [*range(4), *range(len(one.prompts) - 4, len(one.prompts))]
        assert [is_blocked(row) for row in rows] == [bool(one.stops[row]) for row in rows]


def test_inspect(live: tuple[Served, str], tmp_path: Path) -> None:
    from inspect_ai.log import list_eval_logs, read_eval_log

    one, address = live
    (command,) = printed("inspect_ai", "sh", address, one.model.name)
    (task,) = printed("inspect_ai", "python", address, one.model.name)
    rows = [number % len(one.prompts) for number in range(REQUESTS)]
    prompts = [json.dumps({"id": number, "input": one.prompts[row]}) for number, row in enumerate(rows)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(prompts) + "\n", encoding="utf-8")
    (tmp_path / "task.py").write_text(task, encoding="utf-8")
    more = ["--max-connections", "32", "--log-dir", str(tmp_path / "logs"), "--display", "none"]
    words = [word for word in command.split() if "=" not in word]
    environment = dict(word.split("=", 1) for word in command.split() if "=" in word)
    program = str(Path(sys.executable).parent / words[0])
    done = subprocess.run(
        [program, *words[1:], *more], cwd=tmp_path, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    log = read_eval_log(list_eval_logs(str(tmp_path / "logs"))[0].name)
    assert log.status == "success" and log.samples is not None
    reasons = {"content_filter": "content_filter", "stop": "stop", "max_tokens": "length"}
    outputs = [(rows[int(sample.id)], sample.output) for sample in log.samples]
    found = [(row, output.completion, reasons[output.stop_reason]) for row, output in outputs]
    require_the_stops_of_the_recording(one, found)


def test_langchain(live: tuple[Served, str]) -> None:
    one, address = live
    (code,) = printed("LangChain", "python", address, one.model.name)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)

    async def ask(prompt: str, stream: bool) -> tuple[str, str]:
        if not stream:
            answer = await names["model"].ainvoke(prompt)
            return answer.content, answer.response_metadata["finish_reason"]
        text, reason = "", ""
        async for chunk in names["model"].astream(prompt):
            text += chunk.content
            reason = chunk.response_metadata.get("finish_reason") or reason
        return text, reason

    require_the_stops_of_the_recording(one, answers(one, ask))
