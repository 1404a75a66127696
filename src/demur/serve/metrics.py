"""What a server counts, in the text format of Prometheus.

In: what happens to requests. Out: the page `/metrics`. Nothing here holds text of anybody's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from demur.serve.engines.engine import Engine

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
SCORES = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 50)


class Metrics:
    """The counters of one server."""

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()

        def named(kind: Callable[..., Any], name: str, told: str, labels: tuple[str, ...] = (), **options: Any) -> Any:
            return kind(f"demur:{name}", told, labels, registry=self._registry, **options)

        self.requests: Counter = named(Counter, "requests", "Answers by why they ended.", ("finish_reason",))
        self.refused: Counter = named(Counter, "requests_refused", "Requests answered with a fault.", ("code",))
        self.stopped: Histogram = named(
            Histogram, "stopped_step", "Steps at which guards stopped generations.", ("guard",), buckets=STEPS
        )
        self.scores: Histogram = named(
            Histogram, "guard_score", "Last score of each generation by guard.", ("guard",), buckets=SCORES
        )
        self.first: Histogram = named(
            Histogram, "time_to_first_token_seconds", "Until the first text was sent.", buckets=SECONDS
        )
        self.took: Histogram = named(Histogram, "request_seconds", "Until the answer was whole.", buckets=SECONDS)
        self.prompt_tokens: Counter = named(Counter, "prompt_tokens", "Tokens of prompts.")
        self.tokens: Counter = named(Counter, "generation_tokens", "Tokens of answers.")
        self.log_faults: Counter = named(Counter, "log_faults", "Verdicts that could not be logged.")
        self._gauge("num_requests_running", "Generations under way.", lambda: engine.running)
        self._gauge("num_requests_waiting", "Generations not begun.", lambda: engine.waiting)
        self._gauge("guard_seconds_total", "Seconds spent on judging.", lambda: engine.guards.seconds)

    def _gauge(self, name: str, told: str, value: Callable[[], float]) -> None:
        Gauge(f"demur:{name}", told, registry=self._registry).set_function(value)

    def verdict(self, guard: str, score: float, stopped_at: int) -> None:
        """Count what one guard has said of one generation."""
        if not math.isnan(score):
            self.scores.labels(guard).observe(min(score, 1e9))
        if stopped_at:
            self.stopped.labels(guard).observe(stopped_at)

    def page(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)
