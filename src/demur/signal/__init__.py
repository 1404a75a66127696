"""The signal, the anchors behind it, and the formulas: arrays in, arrays out."""

from demur.signal.anchors import Anchors
from demur.signal.formula import log_ratio, sri, sri_features, text_signal
from demur.signal.signal import Signal
from demur.signal.sums import AnchorCount, AnchorSums, RecordingLike

__all__ = [
    "AnchorCount",
    "AnchorSums",
    "Anchors",
    "RecordingLike",
    "Signal",
    "log_ratio",
    "sri",
    "sri_features",
    "text_signal",
]
