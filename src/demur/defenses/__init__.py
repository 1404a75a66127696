"""Defenses: whatever blocks a generation, and what it costs, under one interface."""

from demur.defenses.any_of import AnyOf
from demur.defenses.defense import Blocking, Defense
from demur.defenses.guard_defense import GuardDefense
from demur.defenses.guard_model import GuardModel
from demur.defenses.perplexity import token_losses
from demur.defenses.perplexity_filter import PerplexityFilter
from demur.defenses.self_examine import SelfExamine

__all__ = [
    "AnyOf",
    "Blocking",
    "Defense",
    "GuardDefense",
    "GuardModel",
    "PerplexityFilter",
    "SelfExamine",
    "token_losses",
]
