"""Models: from a Hub id, a folder or a `.gguf` file to a network whose layers can be read."""

from demur.models.chat import SYSTEM_PROMPT, ChatFormat, decode_response
from demur.models.formats.bidirectional import make_bidirectional, make_block_causal
from demur.models.in_memory import from_network
from demur.models.loading import load
from demur.models.model import Layer, Model
from demur.models.traits import FAMILIES, Family, Traits

__all__ = [
    "FAMILIES",
    "SYSTEM_PROMPT",
    "ChatFormat",
    "Family",
    "Layer",
    "Model",
    "Traits",
    "decode_response",
    "from_network",
    "load",
    "make_bidirectional",
    "make_block_causal",
]
