"""Questions to a chat model behind an OpenAI-compatible address.

In: questions. Out: the model's answers, greedy. An address that cannot be reached, refuses, or speaks another
protocol is an `InputError`; what the answers mean is left to the judge.
"""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from demur.errors import InputError

LOCAL = ("localhost", "127.0.0.1", "::1")
PASSING = (408, 429, 500, 502, 503, 504)
"""Statuses after which the same request may succeed."""


@dataclass(frozen=True)
class HTTPAsker:
    """Asks ``ADDRESS/chat/completions``, up to `at_once` questions at a time.

    address : such as ``http://127.0.0.1:8000/v1``. model : its name there.
    api_key_env : environment variable that holds the key, if one is needed; the key is kept nowhere else.
    timeout : seconds for one request. retries : further attempts at one that failed in passing.
    max_tokens : longest answer; more than a word is needed only for models that think aloud.
    """

    address: str
    model: str
    api_key_env: str | None = None
    timeout: float = 60.0
    retries: int = 3
    max_tokens: int = 8
    at_once: int = 8
    pause: float = 0.5  # seconds before the first further attempt, doubled each time

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InputError(f"judge address {self.address!r} is none; give one like http://127.0.0.1:8000/v1")
        if parts.username is not None:
            raise InputError(f"the judge address at {parts.hostname} holds a name or key; give the key by api_key_env")
        if self.api_key_env is not None and not os.environ.get(self.api_key_env):
            raise InputError(f"the environment variable {self.api_key_env} for the judge's key is not set; export it")

    @property
    def name(self) -> str:
        return self.model

    @property
    def identity(self) -> str:
        return f"{self.model} at {self.address.rstrip('/')}, temperature 0, {self.max_tokens} tokens"

    def __call__(self, questions: Sequence[str]) -> list[str]:
        with ThreadPoolExecutor(self.at_once) as threads:
            return list(threads.map(self._answer, questions))

    def _answer(self, question: str) -> str:
        body: dict[str, Any] = {"model": self.model, "messages": [{"role": "user", "content": question}]}
        body |= {"temperature": 0, "max_tokens": self.max_tokens}
        reply = self._post(json.dumps(body).encode())
        try:
            # A null content is an answer too, an empty one.
            return str(json.loads(reply)["choices"][0]["message"]["content"] or "")
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(f"{self.address}: answers, but not as an OpenAI-compatible server; check it") from error

    def _post(self, body: bytes) -> bytes:
        for attempt in range(self.retries + 1):
            try:
                with self._opener().open(self._request(body), timeout=self.timeout) as reply:
                    return bytes(reply.read())
            except urllib.error.HTTPError as error:
                reason = f"answers with status {error.code}"
                if error.code not in PASSING:
                    raise InputError(
                        f"{self.address}: {reason}; check address, model {self.model!r} and key"
                    ) from error
            except (OSError, HTTPException) as error:
                reason = f"cannot be reached ({getattr(error, 'reason', error)})"
            if attempt < self.retries:
                time.sleep(self.pause * 2**attempt)
        raise InputError(
            f"{self.address}: {reason}, {self.retries + 1} times; start the judge's server, or give another address"
        )

    def _request(self, body: bytes) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        if self.api_key_env is not None:
            headers["Authorization"] = f"Bearer {os.environ[self.api_key_env]}"
        return urllib.request.Request(f"{self.address.rstrip('/')}/chat/completions", body, headers)

    def _opener(self) -> urllib.request.OpenerDirector:
        local = urlsplit(self.address).hostname in LOCAL
        # No proxy to this machine, and no redirect, which would take the key elsewhere.
        return urllib.request.build_opener(urllib.request.ProxyHandler({} if local else None), _Straight())


class _Straight(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None
