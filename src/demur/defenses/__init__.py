"""Defenses: whatever blocks a generation, and what it costs; among them guards that stop one on the way."""

from demur.defenses.any_of import AnyOf
from demur.defenses.defense import Blocking, Defense
from demur.defenses.guard_defense import GuardDefense
from demur.defenses.guard_model import GuardModel
from demur.defenses.perplexity import token_losses
from demur.defenses.perplexity_filter import PerplexityFilter
from demur.defenses.reading import Reading, Watching
from demur.defenses.self_examine import SelfExamine
from demur.defenses.stopping import GuardStopping
from demur.defenses.streaming import generate_guarded, watched_steps

__all__ = [
    "AnyOf",
    "Blocking",
    "Defense",
    "GuardDefense",
    "GuardModel",
    "GuardStopping",
    "PerplexityFilter",
    "Reading",
    "SelfExamine",
    "Watching",
    "generate_guarded",
    "token_losses",
    "watched_steps",
]
