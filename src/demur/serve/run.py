"""The application on uvicorn, until it is told to stop.

In: an application and an address. Out: nothing; a signal to stop lets requests under way end first, within the time
that the settings give them.
"""

from __future__ import annotations

import math

from fastapi import FastAPI

from demur.errors import InputError
from demur.serve.settings import Settings

KEEP_ALIVE = 10
"""Seconds that an idle connection is kept."""
LARGEST_HEAD = 64 * 1024
"""Bytes of a request's headers at most."""


def run(app: FastAPI, settings: Settings, *, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM. Raises `InputError` where the address cannot be had."""
    import uvicorn

    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=math.ceil(settings.drain),
        h11_max_incomplete_event_size=LARGEST_HEAD,
        http="h11",
        ws="none",
    )
    server = uvicorn.Server(config)
    try:
        server.run()
    except SystemExit as error:
        raise InputError(
            f"{host}:{port}: the server could not start; is the port free, and the address yours?"
        ) from error
