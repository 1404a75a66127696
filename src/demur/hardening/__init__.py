"""Training material for guards: wrappers for harmless and harmful requests alike, and prompts of many kinds."""

from demur.hardening.counts import prompt_counts, wrapper_counts
from demur.hardening.prompts import hardening_pairs, hardening_prompts, prompt_kind
from demur.hardening.table import ATTACK_NAMES, WRAPPERS, resembling, wrap, wrapper_kind
from demur.hardening.wrapper import Wrapper

__all__ = [
    "ATTACK_NAMES",
    "WRAPPERS",
    "Wrapper",
    "hardening_pairs",
    "hardening_prompts",
    "prompt_counts",
    "prompt_kind",
    "resembling",
    "wrap",
    "wrapper_counts",
    "wrapper_kind",
]
