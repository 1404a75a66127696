"""Attacks: transforms of a prompt that test a refusal, and readers of published attack prompts."""

from demur.attacks.artifacts import read_artifact
from demur.attacks.attack import Attack, attacked
from demur.attacks.table import ATTACKS, attack_prompts

__all__ = ["ATTACKS", "Attack", "attack_prompts", "attacked", "read_artifact"]
