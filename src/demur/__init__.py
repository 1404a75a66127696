"""demur records, step by step, how a language model decides to refuse.

Prompts, a model and a sampler make a recording; anchors turn it into the signal; rates and guards read the
signal. Everything named in ``__all__`` loads on first use, so importing demur costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from demur import (
        attacks,
        checks,
        defenses,
        dynamics,
        guards,
        judges,
        models,
        prompts,
        recording,
        report,
        samplers,
        signal,
        studies,
    )
    from demur.checks import Check, check
    from demur.errors import DemurError, InputError, ProvenanceError
    from demur.guards import DirectionGuard, ProbeGuard, SRIGuard, StreamingGuard, TrajectoryGuard
    from demur.judges import refused
    from demur.models import Model, load
    from demur.prompts import Prompt, read_prompts
    from demur.provenance import Provenance
    from demur.recording import Recording, record, stream_anchors
    from demur.signal import Anchors, Signal, sri, text_signal

__version__ = "0.1.0"

_HOMES = {
    "Anchors": "signal",
    "Check": "checks",
    "check": "checks",
    "DemurError": "errors",
    "InputError": "errors",
    "Model": "models",
    "Prompt": "prompts",
    "Provenance": "provenance",
    "ProvenanceError": "errors",
    "Recording": "recording",
    "SRIGuard": "guards",
    "Signal": "signal",
    "StreamingGuard": "guards",
    "TrajectoryGuard": "guards",
    "DirectionGuard": "guards",
    "ProbeGuard": "guards",
    "load": "models",
    "read_prompts": "prompts",
    "record": "recording",
    "refused": "judges",
    "sri": "signal",
    "stream_anchors": "recording",
    "text_signal": "signal",
}
_ROOMS = (
    *("attacks", "checks", "defenses", "dynamics", "guards", "judges", "models", "prompts", "recording", "report"),
    *("samplers", "signal", "studies"),
)

__all__ = [
    "Anchors",
    "Check",
    "DemurError",
    "DirectionGuard",
    "InputError",
    "Model",
    "ProbeGuard",
    "Prompt",
    "Provenance",
    "ProvenanceError",
    "Recording",
    "SRIGuard",
    "Signal",
    "StreamingGuard",
    "TrajectoryGuard",
    "__version__",
    "attacks",
    "check",
    "checks",
    "defenses",
    "dynamics",
    "guards",
    "judges",
    "load",
    "models",
    "prompts",
    "read_prompts",
    "record",
    "recording",
    "refused",
    "report",
    "samplers",
    "signal",
    "sri",
    "stream_anchors",
    "studies",
    "text_signal",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"demur.{_HOMES[name]}"), name)
    if name in _ROOMS:
        return import_module(f"demur.{name}")
    raise AttributeError(f"module 'demur' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
