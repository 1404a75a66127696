"""Defenses: whatever blocks a generation, and what it costs; among them guards that stop one on the way."""

from demur.defenses.after.any_of import AnyOf
from demur.defenses.after.cascade import Cascade
from demur.defenses.after.from_guard import GuardDefense
from demur.defenses.after.guard_model import GuardModel
from demur.defenses.after.perplexity import PerplexityFilter
from demur.defenses.after.self_examine import SelfExamine
from demur.defenses.after.stop_signal import StopSignal
from demur.defenses.after.token_losses import token_losses
from demur.defenses.defense import Blocking, Defense
from demur.defenses.live.generate import generate_guarded, watched_steps
from demur.defenses.live.stopping import GuardStopping
from demur.defenses.live.tap import Tap, Verdict
from demur.defenses.live.watching import Reading, Watching
from demur.samplers import DiffuGuard

__all__ = [
    "AnyOf",
    "Blocking",
    "Cascade",
    "Defense",
    "DiffuGuard",
    "GuardDefense",
    "GuardModel",
    "GuardStopping",
    "PerplexityFilter",
    "Reading",
    "SelfExamine",
    "StopSignal",
    "Tap",
    "Verdict",
    "Watching",
    "generate_guarded",
    "token_losses",
    "watched_steps",
]
