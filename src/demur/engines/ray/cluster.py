"""A Ray cluster as the engine uses it: a local one that is started and stopped, or one that runs already.

In: an address, or none. Out: workers, and what they have computed. All that is Ray's own stands in this file; what Ray
reports is an `InputError` that says what to do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from demur.errors import InputError

START_SECONDS = 1800
"""How long workers may take to start and load their model, on a cluster that may have to grow first."""
STORE_BYTES = 512 * 1024**2
"""Room for results on their way in a local cluster."""
DEFAULT_ACTORS = 2
PATIENCE = {
    "RAY_gcs_server_port_wait_time_s": "300",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_raylet_start_wait_time_s": "300",
    "RAY_health_check_timeout_ms": "60000",
}
"""Of a local cluster: on a busy machine its processes need longer to find each other than Ray waits by itself."""
NODE_SECONDS = 90
"""How long the node of a local cluster may take to report; Ray's own 30 seconds cannot be set."""
STARTS = 3
"""How often a local cluster is started: its node gives up by itself where its parts take longer than 30 seconds."""


class Cluster:
    """Starts or reaches a cluster when workers are first asked for.

    address, actors, gpus, threads : see `RayEngine`. start_seconds : how long the workers took to be ready.
    """

    def __init__(self, address: str | None, actors: int | None, gpus: float | None, threads: int | None) -> None:
        import torch

        self.address, self.actors, self.gpus = address, actors, gpus
        self.threads = threads or torch.get_num_threads()
        self.start_seconds = 0.0
        self._ray: Any = None
        self._is_ours = False

    def begin(self, kind: type, arguments: Sequence[Any], retries: int) -> list[Any]:
        """Workers of a class, once each says that it is ready."""
        ray = self._reached()
        has = ray.cluster_resources().get("GPU", 0)
        gpus = self.gpus if self.gpus is not None else float(has > 0)
        count = self.actors or (int(has // gpus) if gpus else 0) or DEFAULT_ACTORS
        options = {"num_cpus": self.threads if self.address else 0, "num_gpus": gpus}
        began = time.monotonic()
        made = ray.remote(kind).options(**options, max_restarts=-1, max_task_retries=retries)
        workers = [made.remote(*arguments) for _ in range(count)]
        asked = [worker.ready.remote() for worker in workers]
        ready, missing = ray.wait(asked, num_returns=count, timeout=START_SECONDS)
        if missing:
            raise InputError(
                f"{len(missing)} of {count} Ray workers did not start within {START_SECONDS // 60} minutes; ask for "
                f"no more workers, GPUs and threads than the cluster has"
            )
        for one in ready:
            fault = self.result(one, "the start of a worker")
            if isinstance(fault, InputError):
                self.end(workers)
                raise fault
        self.start_seconds = time.monotonic() - began
        return workers

    def first_done(self, references: list[Any], timeout: float | None) -> Any | None:
        """One of the results that is there; None where none came in time."""
        done, _ = self._ray.wait(references, num_returns=1, timeout=timeout)
        return done[0] if done else None

    def result(self, reference: Any, what: str) -> Any:
        """A result, or an `InputError` that says why it cannot be had."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except (errors.RayActorError, errors.OutOfMemoryError, errors.WorkerCrashedError) as error:
            raise InputError(
                f"{what} ended its Ray worker again and again, as where memory is too small; what was recorded is "
                f"kept: give a smaller batch size or fewer workers a machine and run the same command again"
            ) from error
        except errors.RayTaskError as error:
            raise error.as_instanceof_cause() from error
        except errors.RayError as error:
            raise InputError(
                f"Ray failed ({type(error).__name__}: {_first_line(error)}); what was recorded is kept: run the same "
                f"command again"
            ) from error

    def restart(self, worker: Any) -> None:
        """End a worker that hangs; Ray starts it anew and gives it its batches again."""
        self._ray.kill(worker, no_restart=False)

    def cancel(self, references: list[Any]) -> None:
        """Let go of results that nobody waits for any more."""
        for one in references:
            with suppress(Exception):  # it may be done, or its worker gone
                self._ray.cancel(one)

    def end(self, workers: Sequence[Any]) -> None:
        """End workers for good."""
        for one in workers:
            with suppress(Exception):  # it may be gone
                self._ray.kill(one)

    def stop(self) -> None:
        """Stop the cluster where it was started here, and leave it where not."""
        if self._ray is not None and self._is_ours:
            self._ray.shutdown()
        self._ray = None

    def _reached(self) -> Any:
        if self._ray is not None:
            return self._ray
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if self.address is None:
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # of a cluster that only this machine reaches
            os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's 15 lets every other process go first
            for name, value in PATIENCE.items():
                os.environ.setdefault(name, value)
        else:
            os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "2")  # Ray's 20 ask for a quarter of an hour
        try:
            import ray
        except ImportError as error:
            raise InputError("the engine ray needs Ray: pip install 'demur[ray]'") from error
        self._is_ours = not ray.is_initialized()
        if self._is_ours:
            _start(ray, self.address)
        self._ray = ray
        return ray


def _start(ray: Any, address: str | None) -> None:
    options: dict[str, Any] = {"address": address}
    if address is None:
        options = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    for left in reversed(range(STARTS if address is None else 1)):
        try:
            with _waiting_for_node() if address is None else nullcontext():
                ray.init(**options, log_to_driver=False, logging_level="CRITICAL")
            return
        except Exception as error:  # Ray raises many kinds, connection errors and plain ones
            _end_half_started(error)
            ray.shutdown()
            if not left:
                where = address or "a local cluster"
                raise InputError(f"{where}: Ray cannot be started or reached ({_first_line(error)})") from error


def _end_half_started(error: BaseException) -> None:
    """End the processes of a node that did not start: Ray loses sight of them, and they would slow the next start."""
    trace = error.__traceback__
    while trace is not None:
        end = getattr(trace.tb_frame.f_locals.get("self"), "kill_all_processes", None)
        if end is not None:
            with suppress(Exception):
                end(check_alive=False, allow_graceful=False)
        trace = trace.tb_next


@contextmanager
def _waiting_for_node() -> Iterator[None]:
    """Let Ray's question for a node that has not reported yet last up to `NODE_SECONDS`."""
    from ray._private import services

    asked: Callable[..., Any] | None = getattr(services, "get_node", None)
    if asked is None:  # another version of Ray; its own patience then
        yield
        return

    def waiting(*arguments: Any) -> Any:
        until = time.monotonic() + NODE_SECONDS
        while True:
            try:
                return asked(*arguments)
            except RuntimeError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.1)

    services.get_node = waiting
    try:
        yield
    finally:
        services.get_node = asked


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
