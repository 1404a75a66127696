"""Faults as OpenAI's clients read them: a status, and a body that names message, type, parameter and code.

In: whatever goes wrong with a request. Out: a response; what was sent is never repeated in it.
"""

from __future__ import annotations

from typing import Any

from fastapi.responses import JSONResponse

from demur.serve.schema import ErrorAnswer, ErrorBody

TYPES = {401: "authentication_error", 404: "invalid_request_error", 429: "rate_limit_error"}


class Fault(Exception):
    """A request that is answered with a status and a reason."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, headers

    @property
    def body(self) -> dict[str, Any]:
        kind = TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        message = str(self).encode("utf-8", "backslashreplace").decode()
        return ErrorAnswer(error=ErrorBody(message=message, type=kind, param=self.param, code=self.code)).model_dump()

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, headers=self.headers)
