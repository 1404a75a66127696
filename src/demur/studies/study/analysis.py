"""`analyse`: from recordings and anchors to a `Study`.

In: recordings by prompt set, each of whose shards is read at most once. Out: guards and every table. Nothing is
generated here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from demur.guards import SRIGuard
from demur.judges import CompliesJudge, Judge
from demur.recording import Recording
from demur.signal import Anchors
from demur.studies.hardening import Hardened
from demur.studies.study.derivers import Derived, derived_from
from demur.studies.study.detection import Detector
from demur.studies.study.detectors import detectors_of, fit_guard
from demur.studies.study.hardened import FOLDER, by_kind, probes_of, with_hardened
from demur.studies.study.left_out import LEFT_OUT, left_out_table
from demur.studies.study.made import Anchored, Made
from demur.studies.study.material import Material
from demur.studies.study.recovery import judged_rates
from demur.studies.study.results import Study
from demur.studies.study.tables import STUDY_TABLES

COLUMNS = ["id", "group", "label", "attack", "goal", "category", "prompt", "text", "refused", "tokens"]
COLUMNS += ["prompt_tokens", "seconds"]


def analyse(
    recordings: dict[str, Recording],
    anchored: Anchored,
    *,
    quantile: float = 0.99,
    judge: Judge | None = None,
    seed: int = 0,
    out: Path | None = None,
    hardened: Hardened | None = None,
) -> Study:
    """All that follows from recordings and anchors: signals, guards, and every table of `STUDY_TABLES`.

    recordings : by prompt set; each of their shards is read at most once. judge : as in `run_study`. out : folder to
        save the guards in, if any. hardened : guards that were fitted on the shipped material, to be compared too.
    """
    anchors = anchored.anchors
    kept = {name: recording for name, recording in recordings.items() if not name.startswith("anchors_")}
    derived = derived_from(kept, anchors, anchored.harmful, quantile, probes_of(hardened) if hardened else ())
    assert derived.directions is not None  # harmful states were given
    signals, texts = derived.signals, derived.texts
    guard = fit_guard(signals, quantile, seed)
    compared = detectors_of(guard, derived, derived.directions, quantile=quantile, seed=seed)
    if hardened:
        compared = with_hardened(compared, hardened, derived)
    if out is not None:
        compared.save(out)
    sigma, text_sigma = (np.concatenate([np.asarray(one) for one in sets.values()]) for sets in (signals, texts))
    generations = _generations(kept, derived, sigma, compared.detectors[0])
    judge = judge or CompliesJudge()
    tested = [name for name in kept if name.startswith("test_")]
    judged, verdicts = judged_rates(
        [kept[name] for name in tested], judge, [derived.predicted[name] for name in tested]
    )
    material = Material(
        kept, anchors, derived, generations, sigma, text_sigma, compared.detectors, compared.stops, judged, hardened
    )
    settings = {**describe(recordings, anchors, guard, seed), "judge": {**judge.describe(), **verdicts}}
    tables = {kind.name: kind.make(material) for kind in STUDY_TABLES.in_order()}
    if hardened:
        settings[FOLDER], tables[FOLDER] = hardened.settings, by_kind(hardened)
        tables[LEFT_OUT] = left_out_table(hardened, derived, generations)
    return Study(
        settings=settings,
        generations=generations,
        scores=pd.DataFrame({detector.name: detector.scores for detector in compared.detectors}),
        signals=sigma,
        text_signals=text_sigma,
        references=anchored.references,
        tables=tables,
        made=Made(recordings, anchors, compared.guards, compared.text_guard, derived.by_layer, texts),
    )


def _generations(kept: Mapping[str, Recording], derived: Derived, sigma: np.ndarray, guard: Detector) -> pd.DataFrame:
    """A row a generation; see `Study`."""
    tables = [recording.table[COLUMNS].assign(set=name) for name, recording in kept.items()]
    return pd.concat(tables, ignore_index=True).assign(
        answer_tokens=np.concatenate(list(derived.lengths.values())),
        final_signal=sigma[:, -1],
        mean_signal=sigma.mean(axis=1),
        guard_error=guard.scores,
        flagged=guard.scores > guard.limit,
    )


def describe(recordings: dict[str, Recording], anchors: Anchors, guard: SRIGuard, seed: int) -> dict[str, Any]:
    """What the study was made from and fitted to, as plain values."""
    made = recordings["anchors_harmless"].provenance
    return {
        "model": made.model,
        "fingerprint": made.fingerprint,
        "sampler": dict(made.sampler),
        "layers": list(anchors.layers),
        "chat_format": dict(made.chat_format),
        "versions": dict(made.versions),
        "counts": {name: len(recording) for name, recording in recordings.items()},
        "prompts": {name: recording.provenance.prompts for name, recording in recordings.items()},
        "anchors": {side: vars(count) for side, count in anchors.counts.items()},
        "guard": {
            "quantile": guard.quantile,
            "threshold": float(guard.threshold_),
            "n_calibration": guard.n_calibration_,
            "false_positive_low": guard.false_positive_low_,
            "false_positive_high": guard.false_positive_high_,
        },
        "tau": 0.1,
        "compliance": 0.5,
        "seed": seed,
    }
