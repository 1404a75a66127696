"""What a thing was made from, and whether two such things may be used together.

In: plain values that the makers fill in. Out: a hashable key (two recordings with one key are the same
recording) and `require_comparable`, which names both sides when they differ. No arrays, no files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from demur.errors import ProvenanceError

UNCOMPARED_SAMPLER_ARGUMENTS = frozenset({"seed"})
"""Sampler arguments that pick another draw of the same process, and so never make two things incomparable."""


@dataclass(frozen=True)
class Provenance:
    """What a recording, an anchor, a signal or a guard was made from.

    model : name the model was loaded by; a label, never compared.
    fingerprint : content identity of the model (`Model.fingerprint`), compared.
    sampler : ``{"name": ..., argument: value, ...}``; compared without its seed.
    layers : layer indices in the order stored, as in transformers' ``hidden_states``
        (0 the embeddings, ``n`` the last layer after the final norm); compared.
    chat_format : how a prompt became token ids; part of the fingerprint already, kept to be read.
    prompts : sha256 over the content of the prompts, and `count` of them; not compared.
    versions : packages that took part; not compared, and no part of `key`.
    former : what demur 0.1 called the model, which is the same as being called `fingerprint`; empty where unknown.
    anchors : of a signal, which anchors, tau and eps made it; empty for states; compared where both have one.
    execution : how the network was run, where that was chosen: attention, compiled, device map. Not compared, for it
        changes results by rounding alone; part of `key`, so that no recording mixes two.
    responses : sha256 over the texts that were forced as whole responses; empty where the model answered itself.
        Not compared: the states are those of the same network under the same sampler and averaged alike, so
        anchors of free generations apply; what the model would have said itself is another matter.
    """

    model: str
    fingerprint: str
    sampler: Mapping[str, Any]
    layers: tuple[int, ...]
    chat_format: Mapping[str, Any] = field(default_factory=dict)
    prompts: str = ""
    count: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    anchors: str = ""
    responses: str = ""
    former: str = ""
    execution: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values; `from_dict` reads them back."""
        values = {**asdict(self), "layers": list(self.layers)}
        if not self.responses:
            del values["responses"]  # what was recorded before there were forced responses keeps its key
        if not self.former:
            del values["former"]
        if not self.execution:
            del values["execution"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Provenance:
        """The inverse of `to_dict`; raises `TypeError` for values of another kind."""
        made = cls(**{**values, "layers": tuple(values["layers"])})
        for name, kind in _KINDS.items():
            value = getattr(made, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"{name} is {value!r:.40}, expected {kind.__name__}")
        if not all(type(layer) is int for layer in made.layers):
            raise TypeError(f"layers is {list(made.layers)}, expected integers")
        return made

    def key(self) -> str:
        """A sha256 over all that makes a recording but versions: equal keys mean the same one."""
        return self._key("versions", "former")

    def keys(self) -> tuple[str, ...]:
        """`key`, and what demur 0.1 wrote in its place, versions included."""
        return self.key(), self._key("former")

    def _key(self, *without: str) -> str:
        left_out = {"model", "anchors", *without}
        content = {name: value for name, value in self.to_dict().items() if name not in left_out}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def same_model(self, other: Provenance) -> bool:
        """Whether both are of one model, by what it is called now or was called before."""
        return bool({self.fingerprint, self.former} & {other.fingerprint, other.former} - {""})

    def differences(self, other: Provenance, *, layers: bool = True) -> list[str]:
        """One phrase for every compared field in which `self` and `other` differ."""
        found = []
        if not self.same_model(other):
            found.append(
                f"model {self.model} ({self.fingerprint[:12]}) against {other.model} ({other.fingerprint[:12]})"
            )
        names = sorted((set(self.sampler) | set(other.sampler)) - UNCOMPARED_SAMPLER_ARGUMENTS)
        for name in names:
            mine, theirs = self.sampler.get(name), other.sampler.get(name)
            if mine != theirs:
                found.append(f"sampler {name} {mine} against {theirs}")
        if layers and self.layers != other.layers:
            found.append(f"layers {list(self.layers)} against {list(other.layers)}")
        if self.anchors and other.anchors and self.anchors != other.anchors:
            mine, theirs = (
                one if " " in one else one[:12] for one in (self.anchors, other.anchors)
            )  # words, or a hash
            found.append(f"anchors {mine} against {theirs}")
        return found


_KINDS: dict[str, type] = {
    **dict.fromkeys(("model", "fingerprint", "prompts", "anchors", "responses"), str),
    **dict.fromkeys(("sampler", "chat_format", "versions", "execution"), Mapping),
    "count": int,
}


def require_comparable(
    mine: Provenance | None, theirs: Provenance | None, what: tuple[str, str], *, layers: bool = True
) -> None:
    """Raise `ProvenanceError` naming both sides unless they were made the same way.

    mine, theirs : None where nothing is known (bare arrays); then nothing is checked.
    what : names of the two sides, such as ``("anchors a.safetensors", "recording runs/x")``.
    """
    if mine is None or theirs is None:
        return
    found = mine.differences(theirs, layers=layers)
    if found:
        raise ProvenanceError(
            f"{what[0]} and {what[1]} do not belong together: {'; '.join(found)}. "
            f"Record and fit both with one model, sampler and layer."
        )
