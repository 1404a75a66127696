"""`check`: does demur measure rightly on this checkpoint, device and dtype? Proved by running it."""

from demur.checks.result import Check, Row
from demur.checks.run import check
from demur.checks.show import show

__all__ = ["Check", "Row", "check", "show"]
