"""Recordings: prompts × model × sampler, kept step by step in a folder."""

from demur.recording.asking import ModelAsker
from demur.recording.forcing import read_responses
from demur.recording.merging import merge
from demur.recording.recorder import record, stream_anchors
from demur.recording.recording import Recording, StepText, StepTokens
from demur.recording.signal_file import read_signal, write_signal

__all__ = [
    "ModelAsker",
    "Recording",
    "StepText",
    "StepTokens",
    "merge",
    "read_responses",
    "read_signal",
    "record",
    "stream_anchors",
    "write_signal",
]
