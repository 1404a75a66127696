"""The kinds of file that the fuzzer damages, each small and whole, and what reading one gives.

In: an empty folder. Out: `Kind`s whose files lie below it. Everything is made by demur itself, from the bundled models.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shutil import copy, copytree
from typing import Any

import numpy as np
import pandas as pd
from fuzz import Kind, digest

import demur
from checkpoints import llama, qwen_gguf
from demur.attacks import read_artifact
from demur.bundled import bundled_model
from demur.files.manifests import read_manifest
from demur.files.tables import read_table
from demur.guards import DetectorGuard, DirectionGuard, SRIGuard, StreamingGuard, TrajectoryGuard, load_guard
from demur.guards.base import Guard
from demur.judges.cache import VerdictCache
from demur.models import Model
from demur.prompts import as_prompts
from demur.recording import read_responses, read_signal, write_signal
from demur.studies import Comparison, compare_runs, read_study
from demur.studies.hardening import GUARD_FILE, LOOKS_FILE, SETTINGS_FILE, STREAMING_FILE, TABLE_FILE, Hardened

FIXTURES = Path(__file__).parent.parent / "fixtures"
ROWS = [{"id": f"p{n}", "prompt": f"tell me about tea {n}", "label": ("harmless", "harmful")[n % 2]} for n in range(6)]
SIGNALS = np.random.default_rng(0).random((60, 4))
GGUF_HEADER = 12_000
"""Bytes in which the header of the tiny GGUF file stands."""
VALUES = np.random.default_rng(1).random((8, 4))


def every_kind(root: Path, study: Path) -> list[Kind]:
    """All kinds, made below `root`; `study` is the folder of a saved study."""
    model = demur.load("demur/tiny-ar")
    makers: dict[str, Callable[[Path, Model], tuple[Callable[[Path], str], tuple[str, ...]]]] = {
        **{f"prompts {ending}": partial(_prompts, ending=ending) for ending in ("jsonl", "csv", "parquet")},
        "responses": _responses,
        "recording": _recording,
        "anchors": _anchors,
        "signal file": _signal,
        "verdict cache": _cache,
        "checkpoint": _checkpoint,
        "artifact": _artifact,
        **{f"guard {name}": partial(_guard, name=name) for name in _guards()},
        "guards in each other's place": _swapped,
        "hardening": _hardening,
        "comparison": _comparison,
        "runs to compare": partial(_compared, study=study),
        "split checkpoint": _split,
        "gguf header": _gguf,
        **{f"{name} checkpoint": partial(_diffusion, name=name) for name in ("llada", "dream")},
    }
    kinds = [Kind("study", study, _read_study, ("*.json", "*.parquet", "*.safetensors"))]
    for name, make in makers.items():
        folder = root / name.replace(" ", "-")
        folder.mkdir(parents=True)
        reader, files = make(folder, model)
        # Lists of rows are as valid with other rows in them.
        loose = name.startswith(("prompts", "responses", "artifact", "gguf")) or name.endswith("checkpoint")
        kinds.append(
            Kind(name, folder, reader, files, valid=loose, head=GGUF_HEADER if name == "gguf header" else None)
        )
    return kinds


def _prompts(folder: Path, model: Model, ending: str) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    table = pd.DataFrame(ROWS)
    if ending == "jsonl":
        (folder / "p.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    elif ending == "csv":
        table.to_csv(folder / "p.csv", index=False)
    else:
        table.to_parquet(folder / "p.parquet")
    return lambda at: digest(*demur.read_prompts(at / f"p.{ending}")), ("p.*",)


def _responses(folder: Path, model: Model) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    rows = [{"id": row["id"], "response": "sure"} for row in ROWS]
    (folder / "r.jsonl").write_text("\n".join(map(json.dumps, rows)))
    prompts = as_prompts(ROWS)
    return lambda at: digest(*read_responses(at / "r.jsonl", prompts)), ("r.jsonl",)


def _recording(folder: Path, model: Model) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    demur.record(model, ROWS, steps=4, out=folder / "r", batch_size=3)
    return _read_recording, ("r/*", "r/*/*")


def _read_recording(at: Path) -> str:
    recording = demur.Recording(at / "r")
    table = recording.table
    return digest(table.to_json(), recording.phi, recording.provenance.key(), recording.steps_text(0))


def _anchors(folder: Path, model: Model) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    drawn = np.random.default_rng(0).standard_normal((2, 4, 1, 8)).astype(np.float32)
    demur.Anchors(drawn[0], drawn[1], (2,)).save(folder / "a.safetensors")
    return lambda at: demur.Anchors.load(at / "a.safetensors").fingerprint, ("a.safetensors",)


def _signal(folder: Path, model: Model) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    recording = demur.record(model, ROWS, steps=4)
    phi = np.asarray(recording.phi)
    anchors = demur.Anchors(phi[0], phi[1], recording.layers, provenance=recording.provenance)
    write_signal(recording, anchors, folder / "s.parquet")

    def reader(at: Path) -> str:
        table, values = read_signal(at / "s.parquet")
        return digest(table.to_json(), np.asarray(values), values.provenance)

    return reader, ("s.parquet",)


def _guards() -> dict[str, Callable[[], Guard]]:
    detectors = ("mahalanobis", "pca", "neighbours", "one-class-svm", "isolation-forest")
    found: dict[str, Callable[[], Guard]] = {
        name: partial(DetectorGuard, name, quantile=0.9, random_state=0) for name in detectors
    }
    found |= {
        "sri": partial(SRIGuard, 0.9, max_iter=2, n_init=1, random_state=0),
        "streaming": partial(StreamingGuard, 0.1),
    }
    return found | {"trajectory": partial(TrajectoryGuard, quantile=0.9), "direction": partial(DirectionGuard, 0.9)}


def _guard(folder: Path, model: Model, name: str) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    guard = _guards()[name]()
    values: Any = VALUES
    if isinstance(guard, DirectionGuard):
        train, harmful = np.random.default_rng(0).standard_normal((2, 60, 2, 1, 4))
        values = harmful[:8]
        guard.fit(train, harmful=harmful + 1, calibration=train[:30])
    else:
        guard.fit(SIGNALS[:30], calibration=SIGNALS[30:])
    guard.save(folder / "g.safetensors")
    return lambda at: digest(load_guard(at / "g.safetensors").errors(values)), ("g.safetensors",)


def _cache(folder: Path, model: Model) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    VerdictCache(folder / "v.jsonl").add({f"{n:064x}": n % 2 == 0 for n in range(8)})
    known = VerdictCache(folder / "v.jsonl").verdicts

    def reader(at: Path) -> str:
        # A verdict that is missing is asked for again; one that changed would be a wrong number.
        return str(all(known.get(key) == value for key, value in VerdictCache(at / "v.jsonl").verdicts.items()))

    return reader, ("v.jsonl",)


def _checkpoint(folder: Path, model: Model) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    copytree(bundled_model("demur/tiny-ar"), folder / "m")
    return lambda at: demur.load(str(at / "m")).fingerprint, ("m/*.json", "m/*.jinja")


def _artifact(folder: Path, model: Model) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    jailbreaks = [{"index": n, "goal": "g", "behavior": "b", "category": "c", "prompt": f"p{n}"} for n in range(3)]
    (folder / "a.json").write_text(json.dumps({"parameters": {"method": "PAIR"}, "jailbreaks": jailbreaks}))
    return lambda at: digest(*read_artifact(at / "a.json")), ("a.json",)


def _swapped(folder: Path, model: Model) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    """A guard of each class, each read as what its name says."""
    guards = {}
    for name in ("sri", "streaming", "trajectory", "mahalanobis"):
        guards[name] = _guards()[name]().fit(SIGNALS[:30], calibration=SIGNALS[30:])
        guards[name].save(folder / f"{name}.safetensors")

    def reader(at: Path) -> str:
        return digest(*(type(g).load(at / f"{name}.safetensors").errors(VALUES) for name, g in guards.items()))

    return reader, ("*.safetensors",)


def _hardening(folder: Path, model: Model) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    """What `demur harden` leaves, with guards of other classes in the places of the probes."""
    guards = [
        _guards()[name]().fit(SIGNALS[:30], calibration=SIGNALS[30:]) for name in ("trajectory", "sri", "streaming")
    ]
    names = (GUARD_FILE, LOOKS_FILE, STREAMING_FILE)
    Hardened(*guards, pd.DataFrame({"kind": ["plain"], "value": [0.1]}), {"C": 0.1}).save(folder)  # type: ignore[arg-type]

    def reader(at: Path) -> str:
        settings = read_manifest(at / SETTINGS_FILE)
        table = read_table(at / TABLE_FILE, expected=settings["tables"][TABLE_FILE]).table
        scores = [type(g).load(at / name).errors(VALUES) for name, g in zip(names, guards, strict=True)]
        return digest(settings, table.to_json(), *scores)

    return reader, ("*",)


def _comparison(folder: Path, model: Model) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    settings, table = {"runs": [{"label": "a"}, {"label": "b"}], "differences": []}, pd.DataFrame({"value": [0.1, 0.2]})
    Comparison(table, settings).save(folder)

    def reader(at: Path) -> str:
        found = read_manifest(at / "comparison.json")
        table = read_table(at / "comparison.parquet", expected=found["tables"]["comparison.parquet"]).table
        return digest(found, table.to_json())

    return reader, ("comparison.*",)


def _compared(folder: Path, model: Model, study: Path) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    for name in "ab":
        copytree(study / "recordings" / "test_attacks", folder / name)
        made = demur.Recording(folder / name)
        drawn = np.random.default_rng(0).random((2, made.steps, 1, 2)).astype(np.float32)
        demur.Anchors(drawn[0], drawn[1], made.layers, provenance=made.provenance).save(
            folder / name / "anchors.safetensors"
        )

    def reader(at: Path) -> str:
        return digest(compare_runs([at / "a", at / "b"], resamples=20).table.to_json())

    return reader, ("*/*.json", "*/*.parquet", "*/*.safetensors", "*/*/*.parquet", "*/*/*.safetensors")


def _split(folder: Path, model: Model) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    llama(folder / "m", shard="40KB")
    return _read_checkpoint(Path("m")), ("m/*.json",)


def _gguf(folder: Path, model: Model) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    qwen_gguf(folder / "m.gguf")
    return _read_checkpoint(Path("m.gguf")), ("m.gguf",)


def _diffusion(folder: Path, model: Model, name: str) -> tuple[Callable[[Path], str], tuple[str, ...]]:
    (fixture,) = (FIXTURES / name).iterdir()
    (folder / "m").mkdir()
    for file in ("config.json", "model.safetensors"):
        copy(fixture / file, folder / "m" / file)
    return _read_checkpoint(Path("m")), ("m/*.json",)


def _read_checkpoint(place: Path) -> Callable[[Path], str]:
    def reader(at: Path) -> str:
        found = demur.load(str(at / place), device="cpu")
        return digest(found.fingerprint, found.family, found.eos_token_ids, found.mask_token_id)

    return reader


def _read_study(at: Path) -> str:
    study = read_study(at)
    parts = [value.to_json() for value in vars(study).values() if isinstance(value, pd.DataFrame)]
    return digest(*parts, study.signals, study.text_signals, study.references, study.settings)
