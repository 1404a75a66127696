"""The anchors: phi of a recording in, sigma in [0, 1] out.

In: recordings (anything with provenance, table and phi_batches) or bare arrays. Out: `Anchors`, and the `Signal`s that
they make. The formulas are in `demur.signal.formula`; recording, rates and guards are left to others.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from demur.errors import InputError
from demur.files.arrays import read_arrays, write_arrays
from demur.notebook import facts, sampler_words
from demur.provenance import Provenance, require_comparable
from demur.sharing import Shareable
from demur.signal.formula import sri, sri_features
from demur.signal.signal import Signal
from demur.signal.sums import AnchorCount, AnchorSums, RecordingLike, require_enough, require_recording

_KIND = "anchors"


@dataclass(frozen=True, eq=False, repr=False)
class Anchors(Shareable):
    """Mean phi of answered harmless and of refused harmful prompts, step by step.

    harmless, harmful : float32 `[steps, layers, width]`.
    layers : index of each layer, in the order stored, as in `Provenance.layers`.
    counts : for "harmless" and "harmful", what the anchor was averaged over; empty where unknown.
    Source: arXiv 2602.02600, section 3.1.
    """

    harmless: NDArray[np.float32]
    harmful: NDArray[np.float32]
    layers: tuple[int, ...]
    counts: Mapping[str, AnchorCount] = field(default_factory=dict)
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        shapes = [self.harmless.shape, self.harmful.shape]
        if shapes[0] != shapes[1] or len(shapes[0]) != 3 or shapes[0][1] != len(self.layers):
            raise InputError(
                f"found anchors of shape {shapes[0]} (harmless) and {shapes[1]} (harmful) for layers "
                f"{list(self.layers)}; expected [steps, layers, width] twice."
            )
        if len(set(self.layers)) != len(self.layers) or 0 in shapes[0]:
            raise InputError(
                f"found anchors of shape {shapes[0]} for layers {list(self.layers)}; give each layer once."
            )
        for name, anchor in (("harmless", self.harmless), ("harmful", self.harmful)):
            if not np.isfinite(anchor).all():
                raise InputError(f"the {name} anchor is not finite; fit the anchors on finite phi.")

    def __repr__(self) -> str:
        steps, _, width = self.harmless.shape
        counts = "".join(f", {side}={count.kept}" for side, count in self.counts.items())
        return f"Anchors(steps={steps}, layers={list(self.layers)}, width={width}{counts})"

    def _repr_html_(self) -> str:
        made = self.provenance
        values = {"steps": len(self.harmless), "layers": list(self.layers), "width": self.harmless.shape[2]}
        kept = {f"{side} prompts": f"{count.kept} of {count.seen}" for side, count in self.counts.items()}
        known = {"model": made.model, "sampler": sampler_words(made.sampler)} if made else {}
        return facts("Anchors", {**known, **values, **kept})

    @property
    def fingerprint(self) -> str:
        """A sha256 over both anchors and their layers: equal fingerprints give equal signals."""
        content = hashlib.sha256(repr((self.harmless.shape, self.layers)).encode())
        for anchor in (self.harmless, self.harmful):
            content.update(np.ascontiguousarray(anchor, dtype="<f4").tobytes())
        return content.hexdigest()

    @property
    def shared_kind(self) -> str:
        """What its file is called where it is shared; the kind of the file."""
        return _KIND

    @classmethod
    def _readable(cls) -> Mapping[str, type[Shareable]]:
        return {_KIND: cls}

    def summary(self) -> dict[str, Any]:
        """What the anchors were made from, as plain values, to be shown.

        kind; model, sampler, versions: None where it is not known; layers, steps, width; harmless and harmful, the
        counts of each side; fingerprint.
        """
        made = self.provenance
        steps, _, width = self.harmless.shape
        return {
            "kind": _KIND,
            "model": made and made.model,
            "sampler": made and dict(made.sampler),
            "layers": list(self.layers),
            "steps": steps,
            "width": width,
            **{side: str(count) for side, count in self.counts.items()},
            "versions": made and dict(made.versions),
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def fit(
        cls,
        harmless: RecordingLike,
        harmful: RecordingLike,
        *,
        minimum: int = 8,
        least_share: float = 0.05,
        harmless_refused: ArrayLike | None = None,
        harmful_refused: ArrayLike | None = None,
    ) -> Anchors:
        """Anchors from a recording of harmless and one of harmful prompts, each read once, a batch at a time.

        minimum, least_share : fewest prompts, and least share of those seen, that must be left on each side after
            filtering. A handful of refusals among hundreds of prompts is mostly slips of the dictionary.
        harmless_refused, harmful_refused : bool `[prompts]`, verdicts in place of the table's `refused`.
        Raises `InputError` for too few prompts or missing verdicts, `ProvenanceError` for recordings that
        were not made the same way.
        """
        require_recording(harmless, "the harmless recording")
        require_recording(harmful, "the harmful recording")
        mine, theirs = harmless.provenance, harmful.provenance
        require_comparable(mine, theirs, ("the harmless recording", "the harmful recording"))
        made = replace(mine, prompts=f"{mine.prompts}+{theirs.prompts}", count=mine.count + theirs.count)
        sums = AnchorSums.of(harmless, harmless_refused, "harmless"), AnchorSums.of(harmful, harmful_refused, "harmful")
        return cls.from_sums(*sums, minimum=minimum, least_share=least_share, provenance=made)

    @classmethod
    def from_sums(
        cls,
        harmless_sums: AnchorSums,
        harmful_sums: AnchorSums,
        *,
        minimum: int = 8,
        least_share: float = 0.05,
        provenance: Provenance | None = None,
    ) -> Anchors:
        """Anchors from sums over the harmless and over the harmful prompts; see `fit`.

        provenance : what the sums were made from; without it layers are numbered from 0.
        """
        if minimum < 1 or not 0 <= least_share <= 1:
            raise InputError(f"minimum is {minimum} and least_share {least_share}; expected at least 1, and 0 to 1.")
        counts = {
            "harmless": AnchorCount(harmless_sums.seen, harmless_sums.refused, harmless_sums.answered),
            "harmful": AnchorCount(harmful_sums.seen, harmful_sums.refused, harmful_sums.refused),
        }
        require_enough(counts, minimum, least_share)
        assert harmless_sums.shape is not None  # at least one prompt was kept
        return cls(
            harmless=harmless_sums.mean(refused=False),
            harmful=harmful_sums.mean(refused=True),
            layers=provenance.layers if provenance else tuple(range(harmless_sums.shape[1])),
            counts=counts,
            provenance=provenance,
        )

    def signal(self, recording: RecordingLike, layer: int | None = None, tau: float = 0.1, eps: float = 1e-8) -> Signal:
        """The signal of every prompt of a recording, `[prompts, steps]`, in the order of its table.

        layer : index of a layer that both hold; by default the highest one of the anchors.
        Raises `ProvenanceError` for a recording that was not made like the anchors.
        """
        require_recording(recording, "the recording")
        layer = self._layer(layer)
        sigma = self._of_every_prompt(recording, (layer,), lambda phi: self.score(phi[:, :, 0], layer, tau, eps))
        return Signal(sigma, self.describe(recording.provenance, layer, tau, eps))

    def features(self, states: Any, layers: Sequence[int] | None = None, eps: float = 1e-8) -> Any:
        """What the signal is computed from, before it saturates: float32 `[prompts, steps, layers, 2]`.

        The last axis holds `log(d_harmful) - log(d_harmless)`, the nearer anchor, and `log(d_harmless)`, how far
        from it; see `sri_features`.
        states : a recording, or bare phi `[n, steps, layers, width]` (NumPy or torch) with the chosen layers.
        layers : indices of layers that both hold, in the order wanted; by default all of the anchors.
        A recording gives a `Signal` that knows what it was made from, bare phi an array of its own kind. Raises
        `InputError` for shapes and layers that do not fit, `ProvenanceError` as `signal` does.
        """
        layers = tuple(self._layer(layer) for layer in (self.layers if layers is None else layers))
        if not hasattr(states, "phi_batches"):
            return self._features(states, layers, eps)
        values = self._of_every_prompt(states, layers, lambda phi: self._features(phi, layers, eps))
        formula = hashlib.sha256(f"{self.fingerprint}:features:{layers}:{eps}".encode()).hexdigest()
        return Signal(values, replace(states.provenance, layers=layers, anchors=formula))

    def _features(self, phi: Any, layers: tuple[int, ...], eps: float) -> Any:
        if phi.ndim != 4 or phi.shape[2] != len(layers) or not 0 < phi.shape[1] <= len(self.harmless):
            raise InputError(
                f"phi has shape {tuple(phi.shape)}; expected [n, steps, layers, width] with the layers "
                f"{list(layers)} and at most the {len(self.harmless)} steps of the anchors."
            )
        n, steps, _, width = phi.shape
        places = [self.layers.index(layer) for layer in layers]
        harmless, harmful = (side[:steps, places].reshape(-1, side.shape[2]) for side in (self.harmless, self.harmful))
        # Every step of every layer has anchors of its own, so the formula may take both axes as one.
        return sri_features(phi.reshape(n, -1, width), harmless, harmful, eps).reshape(n, steps, len(layers), 2)

    def _of_every_prompt(
        self, recording: RecordingLike, layers: tuple[int, ...], values_of: Callable[[Any], Any]
    ) -> NDArray[np.float32]:
        """`values_of(phi [n, steps, layers, width])` of a whole recording, a batch at a time, in its table's order."""
        made = recording.provenance
        require_comparable(self.provenance, made, ("the anchors", "the recording"), layers=False)
        missing = [layer for layer in layers if layer not in made.layers]
        if missing:
            raise InputError(
                f"the recording holds layers {list(made.layers)}, not layer {missing[0]}; the anchors hold "
                f"{list(self.layers)}. Give one that both hold."
            )
        places = [made.layers.index(layer) for layer in layers]
        values = np.full((len(recording.table), 0), np.nan, dtype=np.float32)
        for rows, phi in recording.phi_batches():
            found = values_of(phi[:, :, places])
            if not values.size:
                values = np.full((len(values), *found.shape[1:]), np.nan, dtype=np.float32)
            values[rows] = found
        lacking = np.isnan(values).reshape(len(values), -1).any(axis=1) if values.size else np.ones(len(values), bool)
        if lacking.any() or not values.size:
            first = np.flatnonzero(lacking)[:5].tolist()
            raise InputError(f"the recording holds no phi for rows {first} of its table; record it again.")
        return values

    def score(self, phi: Any, layer: int | None = None, tau: float = 0.1, eps: float = 1e-8) -> Any:
        """The signal of bare phi, float32 `[n, steps]`, of phi's kind (NumPy or torch).

        phi : `[n, steps, width]` of that layer, or `[n, steps, layers, width]` with the layers of the anchors.
        """
        place = self.layers.index(self._layer(layer))
        if phi.ndim == 4 and phi.shape[2] == len(self.layers):
            phi = phi[:, :, place]
        if phi.ndim != 3:
            raise InputError(
                f"phi has shape {tuple(phi.shape)}; expected [n, steps, width], or [n, steps, layers, width] "
                f"with the {len(self.layers)} layers of the anchors."
            )
        return sri(phi, self.harmless[:, place], self.harmful[:, place], tau, eps)

    def score_step(
        self,
        phi: Any,
        step: int | NDArray[np.integer[Any]],
        layer: int | None = None,
        tau: float = 0.1,
        eps: float = 1e-8,
    ) -> Any:
        """The signal of one step, float32 `[n]`, from its phi `[n, width]`; step, of all or of each, counts from 1."""
        steps = np.broadcast_to(step, len(phi))
        if (outside := (steps < 1) | (steps > len(self.harmless))).any():
            raise InputError(f"step is {steps[outside][0]}; the anchors have steps 1 to {len(self.harmless)}.")
        here = (steps - 1, self.layers.index(self._layer(layer)))
        return sri(phi, self.harmless[here], self.harmful[here], tau, eps)

    def describe(self, made: Provenance, layer: int, tau: float = 0.1, eps: float = 1e-8) -> Provenance:
        """The provenance of a signal that these anchors make of states of provenance `made`."""
        formula = hashlib.sha256(f"{self.fingerprint}:{layer}:{tau}:{eps}".encode()).hexdigest()
        return replace(made, layers=(layer,), anchors=formula)

    def _layer(self, layer: int | None) -> int:
        if layer is None:
            return max(self.layers)
        if layer not in self.layers:
            raise InputError(f"the anchors hold layers {list(self.layers)}, not layer {layer}; give one of them.")
        return layer

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to one safetensors file; `load` reads it back."""
        header = {
            "kind": _KIND,
            "layers": list(self.layers),
            "counts": {side: asdict(count) for side, count in self.counts.items()},
            "provenance": self.provenance.to_dict() if self.provenance else None,
        }
        write_arrays(path, {"harmless": self.harmless, "harmful": self.harmful}, header)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, allow_unverified: bool = False) -> Anchors:
        """Read what `save` wrote; `InputError` names the file where it cannot be used.

        allow_unverified : read files of demur 0.1 too, which carry no hash.
        """
        arrays, header = read_arrays(path, _KIND, allow_unverified=allow_unverified)
        try:
            anchors = cls(
                harmless=arrays["harmless"],
                harmful=arrays["harmful"],
                layers=tuple(header["layers"]),
                counts={side: AnchorCount(**count) for side, count in header["counts"].items()},
                provenance=Provenance.from_dict(header["provenance"]) if header["provenance"] else None,
            )
            _require_consistent(anchors, arrays)
            return anchors
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: its header and arrays do not fit ({error}); save the anchors again.") from error


def _require_consistent(anchors: Anchors, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Raise `ValueError` unless arrays, layers and counts as read can be those of one fit."""
    kinds = {array.dtype.name for array in arrays.values()}
    if set(arrays) != {"harmless", "harmful"} or kinds != {"float32"}:
        raise ValueError(f"the arrays are {sorted(arrays)} of {sorted(kinds)}")
    if not all(type(layer) is int for layer in anchors.layers):
        raise ValueError(f"the layers are {list(anchors.layers)}")
    if anchors.provenance is not None and anchors.provenance.layers != anchors.layers:
        raise ValueError(f"the layers are {list(anchors.layers)} and were recorded as {anchors.provenance.layers}")
    for side, count in anchors.counts.items():
        whole = all(type(number) is int and number >= 0 for number in vars(count).values())
        if side not in arrays or not whole or max(count.refused, count.kept) > count.seen or not count.kept:
            raise ValueError(f"the counts of side {side!r} are {vars(count)}")
