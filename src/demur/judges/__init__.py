"""Judges of text: a text goes in, a verdict comes out. Only the refusal dictionary lives here so far."""

from demur.judges.dictionary import REFUSAL_DICTIONARY, refused

__all__ = ["REFUSAL_DICTIONARY", "refused"]
