"""The guards of a server: read from files, paired with what they watch, and asked together.

In: files, a study's folder, or names of the Hub. Out: for each request of an engine, whether a guard stops it and what
each of them has said. Reading states out of a network is left to the engines.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from demur.defenses import Reading, Tap, Verdict
from demur.defenses.live.watching import Source
from demur.errors import InputError
from demur.files.listed import listed, require_listed
from demur.guards import LinearGuard, StreamingGuard, load_guard
from demur.looks import Looks
from demur.models import Model
from demur.samplers import Step
from demur.sharing import is_hub_name, open_shared
from demur.signal import Anchors
from demur.studies.hardening import SETTINGS_FILE
from demur.studies.study.results import SETTINGS

STUDY_PAIRS = (
    ("probe_looks.safetensors", "streaming_probe_guard.safetensors"),
    ("direction_looks.safetensors", "streaming_direction_guard.safetensors"),
    ("anchors.safetensors", "streaming_guard.safetensors"),
)
"""What a study's folder holds: what is watched, and the streaming guard that watches it; the first pair that its
manifests list is taken."""
MANIFESTS = (SETTINGS, SETTINGS_FILE)
"""Of studies and of `demur harden`; each lists the guards that were written with it."""


@dataclass(frozen=True)
class Watched:
    """A streaming guard with what it watches.

    name : what verdicts call it. files : where both were read from.
    """

    name: str
    source: Source
    guard: StreamingGuard
    files: tuple[str, ...] = ()

    @property
    def sampler(self) -> dict[str, Any]:
        """Name and arguments of the sampler that the guard was made for; `InputError` where it does not know."""
        made = self.source.provenance if isinstance(self.source, Anchors) else self.source.provenance_
        if made is None:
            raise InputError(f"{self.name}: does not know the model and sampler it was made for; fit it on recordings")
        return dict(made.sampler)

    def reading(self, model: Model) -> Reading:
        """How this model's states are read; `ProvenanceError` unless the guard was made for it."""
        made = self.source.provenance if isinstance(self.source, Anchors) else self.source.provenance_
        if made is not None:
            former = model.former_fingerprint
            made = replace(made, model=model.name, fingerprint=model.fingerprint, former=former, anchors="")
        return Reading.of(self.source, self.guard, None, made)

    def facts(self) -> dict[str, Any]:
        """What a log and `/v1/models` say of it."""
        source = self.source.fingerprint
        limit, alpha = float(self.guard.threshold_), float(self.guard.alpha)
        return {"name": self.name, "source": source, "limit": limit, "alpha": alpha, "files": list(self.files)}


def load_guards(places: Sequence[str | Path]) -> list[Watched]:
    """The guards in these places, each streaming guard with what it watches.

    places : files of streaming guards and of what they watch (anchors, a direction or a probe), folders of studies, or
    names of the Hub; a study's folder gives its best pair. Raises `InputError` where a streaming guard finds nothing to
    watch, or something to watch finds no guard.
    """
    sources: list[tuple[str, Source]] = []
    streams: list[tuple[str, StreamingGuard]] = []
    for place in _spread(places):
        found = _read(place)
        if isinstance(found, StreamingGuard):
            streams.append((place, found))
        elif isinstance(found, Anchors | LinearGuard):
            sources.append((place, found))
        else:
            raise InputError(
                f"{place}: is a {type(found).__name__}, which judges whole generations; give a streaming guard and "
                "the anchors, direction or probe that it watches"
            )
    if not streams:
        raise InputError("there is no streaming guard among --guard; give one beside what it watches, or a study")
    pairs = [_paired(place, guard, sources) for place, guard in streams]
    if unused := [place for place, _ in sources if place not in {file for pair in pairs for file in pair.files}]:
        raise InputError(f"{unused[0]}: no streaming guard that was given watches it; give that guard too")
    return pairs


def _spread(places: Sequence[str | Path]) -> list[str]:
    """Files; of a study's folder those of its best pair, of a shared folder or a name of the Hub all that it lists."""
    found: list[str] = []
    for place in places:
        pair = _best_pair(Path(place))
        for manifest in MANIFESTS if pair else ():
            require_listed(Path(place), manifest)
        if pair is None and (Path(place).is_dir() or is_hub_name(place)):
            shared = open_shared(place)
            found += [str(shared.folder / name) for name in shared.files]
        else:
            found += [str(Path(place) / one) for one in pair] if pair else [str(place)]
    return found


def _best_pair(folder: Path) -> tuple[str, str] | None:
    """The first of `STUDY_PAIRS` that is there; what no manifest lists was left behind by another run."""
    names = listed(folder, MANIFESTS)
    there = (pair for pair in STUDY_PAIRS if names is None or names.issuperset(pair))
    return next((pair for pair in there if all((folder / one).is_file() for one in pair)), None)


def _read(place: str) -> Any:
    try:
        return load_guard(place)
    except InputError as fault:
        try:
            return Anchors.load(place) if Path(place).is_file() else Anchors.from_pretrained(place)
        except InputError:
            raise fault from None


def _paired(place: str, guard: StreamingGuard, sources: Sequence[tuple[str, Source]]) -> Watched:
    faults = []
    for where, source in sources:
        try:
            Reading.of(source, guard)
        except InputError as fault:
            faults.append(str(fault))
        else:
            return Watched(Path(place).stem, source, guard, (where, place))
    why = faults[0] if faults else "nothing was given that it could watch"
    raise InputError(f"{place}: {why}")


class Guards:
    """The guards of one engine: a tap each, over the union of their layers, used by one thread at a time.

    layers : whose states `take` and `judge` are given. last_step : the step behind which no guard looks any more, 0
    where there is none. has_prompt : whether a guard looks at the prompt's own state. seconds : that were spent on
    judging so far.
    """

    def __init__(self, model: Model, watched: Sequence[Watched], requests: int = 32) -> None:
        self.names = [one.name for one in watched]
        self.taps = [Tap(one.reading(model), one.guard, requests) for one in watched]
        self.layers = tuple(sorted({layer for tap in self.taps for layer in tap.layers}))
        self._places = [self._places_of(tap) for tap in self.taps]
        self.last_step = max((tap.last_step for tap in self.taps), default=0)
        self.has_prompt = any(tap.has_prompt for tap in self.taps)
        self.seconds = 0.0
        grids = {tap.watching.reading.looks for tap in self.taps if tap.watching.reading.looks is not None}
        if len(grids) > 1:
            raise InputError("the guards look at different steps of whole answers; serve those of one recording")

    @property
    def looks(self) -> Looks | None:
        """The looks of whole answers that samplers are asked for; None where no guard has any."""
        return next((tap.watching.reading.looks for tap in self.taps if tap.watching.reading.looks), None)

    def open(self, request: Hashable) -> None:
        for tap in self.taps:
            tap.open(request)

    def prompt(self, requests: Sequence[Hashable], states: torch.Tensor) -> NDArray[np.bool_]:
        """The states of the last prompt token ``[rows, layers, width]``: True where they alone stop a request."""
        asking = [(tap, places) for tap, places in zip(self.taps, self._places, strict=True) if tap.has_prompt]
        with self._timed():
            found = [tap.prompt(requests, states[:, places]) for tap, places in asking]
        return np.any(found, axis=0) if found else np.zeros(len(requests), dtype=bool)

    def prompt_scores(self, request: Hashable) -> dict[str, float]:
        """What guards have said of the prompt alone, right after `prompt`."""
        pairs = zip(self.names, self.taps, strict=True)
        return {name: tap.verdict(request).score for name, tap in pairs if tap.has_prompt}

    def take(self, requests: Sequence[Hashable], states: torch.Tensor) -> NDArray[np.bool_]:
        """One more token of each request, states ``[rows, layers, width]``; see `Tap.take`.

        True for the rows at which a guard looked, bool ``[rows]``: what is said of the others stays as it was.
        """
        looked = np.zeros(len(requests), dtype=bool)
        with self._timed():
            for tap, places in zip(self.taps, self._places, strict=True):
                tap.take(requests, states[:, places])
                looked |= tap.looked
        return looked

    def judge(self, requests: Sequence[Hashable], step: Step, rows: Sequence[int]) -> NDArray[np.bool_]:
        """A sampler has made one more step, of which `rows` are those of the requests; see `Tap.judge`.

        True for the rows at which a guard looked, as of `take`.
        """
        looked = np.zeros(len(requests), dtype=bool)
        with self._timed():
            for tap, places in zip(self.taps, self._places, strict=True):
                if step.index in tap.watching.reading.steps:
                    at = torch.as_tensor(rows, device=step.phi.device)
                    window = None if step.window is None else step.window[at][:, places]
                    tap.judge(requests, step.phi[at][:, places], window, step=step.index)
                    looked |= tap.looked
                elif step.index < tap.last_step:
                    tap.passed(requests, step.index)
        return looked

    def _places_of(self, tap: Tap) -> slice | list[int]:
        """Where the layers of a tap are among all; a slice, which copies nothing, where it reads all of them."""
        return slice(None) if tap.layers == self.layers else [self.layers.index(layer) for layer in tap.layers]

    def finish(self, request: Hashable, step: Step | None = None, row: int = 0, *, cut: bool = False) -> None:
        """The request has ended; see `Tap.finish`. step, row : of a sampler, the last step and its row of that."""
        for tap, places in zip(self.taps, self._places, strict=True):
            if step is None:
                tap.finish(request, cut=cut)
            else:
                window = step.phi if step.window is None else step.window
                tap.finish(request, step.phi[row][places], window[row][places], cut=cut)

    def stopped_at(self, request: Hashable) -> int:
        """The earliest step at which a guard stops it, 0 where none does."""
        stops = [tap.verdict(request).stopped_at for tap in self.taps]
        return min((stop for stop in stops if stop), default=0)

    def cleared(self, request: Hashable) -> int | None:
        """The latest step that every guard has looked at; None where none of them has a look to come."""
        seen = [step for tap in self.taps if (step := tap.cleared(request)) is not None]
        return min(seen, default=None)

    def close(self, request: Hashable) -> dict[str, Verdict]:
        """The last verdicts on a request, by guard."""
        return {name: tap.close(request) for name, tap in zip(self.names, self.taps, strict=True)}

    @contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began

    def forget(self, request: Hashable) -> None:
        """Close a request whether it is open or not."""
        if self.taps and request in self.taps[0].requests:
            self.close(request)
