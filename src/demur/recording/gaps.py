"""Text of a canvas with gaps: words that are not neighbours are never read as if they were.

In: token ids of a response, and which of them are known. Out: the text up to the first end-of-sequence, with one mark
for every run of positions that are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

GAP = "\u25a2"
"""Stands for any number of positions that are not known; no word of the refusal dictionary reaches across it."""


def text_with_gaps(
    decode: Callable[[Sequence[int]], str], tokens: np.ndarray, known: np.ndarray, eos_token_ids: Sequence[int]
) -> str:
    """The text of the known tokens, a `GAP` between two runs of them; those before the first and behind the last are
    left out.

    decode : turns neighbouring token ids into text. tokens, known : int and bool ``[response]``.
    """
    places = np.flatnonzero(known)
    ends = {*eos_token_ids}
    end = next((at for at, token in enumerate(tokens[places].tolist()) if token in ends), None)
    places = places[:end]
    breaks = np.flatnonzero(np.diff(places) > 1) + 1
    if not len(breaks):
        return decode(tokens[places].tolist())
    runs = np.split(places, breaks)
    opening = decode([])  # what stands in front of any text, a thought that the chat template has opened
    return opening + GAP.join(decode(tokens[run].tolist()).removeprefix(opening) for run in runs)
