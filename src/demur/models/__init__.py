"""Models: from a Hub id, a folder or a `.gguf` file to a network whose layers can be read."""

from demur.models.chat import SYSTEM_PROMPT, ChatFormat, decode_response
from demur.models.formats.bidirectional import make_bidirectional, make_block_causal
from demur.models.in_memory import from_network
from demur.models.loading import load
from demur.models.model import Family, Layer, Model

__all__ = [
    "SYSTEM_PROMPT",
    "ChatFormat",
    "Family",
    "Layer",
    "Model",
    "decode_response",
    "from_network",
    "load",
    "make_bidirectional",
    "make_block_causal",
]
