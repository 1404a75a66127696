"""`Study`: the results of a study, as tidy tables in a folder.

In: the tables that the other modules here compute. Out: Parquet files, one JSON of settings, and the same
read back. Nothing is computed here, and nothing drawn.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

PROMPT_SETS = (
    "anchors_harmless",
    "anchors_harmful",
    "guard_train_harmless",
    "guard_calibration_harmless",
    "test_harmless",
    "test_harmful",
    "test_attacks",
)
"""The prompt files of a study, by name without ending; `test_attacks` may be missing."""

SETTINGS = "study.json"
SIGNALS = "signals.parquet"


@dataclass(frozen=True)
class Study:
    """The results of one model under one sampler.

    settings : model, sampler, layers, thresholds, counts, versions; plain values.
    generations : a row a generation of the test sets and the guard's sets, with the columns set, id, group,
        label, attack, goal, category, prompt, text, refused, tokens, prompt_tokens, seconds, answer_tokens (those
        before the end-of-sequence), final_signal, mean_signal, guard_error, flagged.
    scores : a column a detector, higher is stranger, in the row order of `generations`.
    signals, text_signals : float32 ``[generations, steps]``, in the row order of `generations`.
    references : float32 ``[2, steps]``: mean signal of the harmless prompts that were answered and of the
        harmful ones that were refused, among the anchor prompts.
    rates : rate, group, threshold, value, low, high, count. `rate` is RR, "RR with guard" or IRR, and with the
        judge's name behind it HRR, FRR (samplers that revise) or ASR (judges of harm); `threshold` is lambda_r
        for IRR, else missing.
    detection : detector, group, subset ("all" or "complied"), auroc, auroc_low, auroc_high, tpr, tpr_low,
        tpr_high, positives, negatives; attacks against the harmless test prompts.
    false_positives : detector, group, value, low, high, count; harmless prompts that are flagged.
    controls : as `false_positives` for every control set, and attacks against it; see `control_table`.
    correlations : detector, length, value, low, high, count; of the scores of harmless prompts with lengths.
    streaming : detector, group, alpha, value, low, high, count (share stopped on the way), median_step, median_saved.
    projection : place (row of `generations`), kind ("harmless", "refused", "complied under attack"), x, y.
    """

    settings: dict[str, Any]
    generations: pd.DataFrame
    scores: pd.DataFrame
    signals: np.ndarray
    text_signals: np.ndarray
    references: np.ndarray
    rates: pd.DataFrame
    detection: pd.DataFrame
    false_positives: pd.DataFrame
    controls: pd.DataFrame
    correlations: pd.DataFrame
    streaming: pd.DataFrame
    projection: pd.DataFrame
    path: Path = field(default=Path())

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return int(self.signals.shape[1])

    def save(self, folder: str | Path) -> None:
        """Write every table as Parquet, the signals as one wide table, the settings as JSON."""
        import pandas as pd

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in _TABLES:
            getattr(self, name).to_parquet(folder / f"{name}.parquet", index=False)
        columns = {
            kind: list(values) for kind, values in (("signal", self.signals), ("text_signal", self.text_signals))
        }
        pd.DataFrame({"set": self.generations["set"], "id": self.generations["id"], **columns}).to_parquet(
            folder / SIGNALS, index=False
        )
        settings = {**self.settings, "references": self.references.astype(float).round(6).tolist()}
        (folder / SETTINGS).write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")


_TABLES = tuple(f.name for f in fields(Study) if f.type == "pd.DataFrame")


def read_study(folder: str | Path) -> Study:
    """Read the results that `Study.save` wrote; `InputError` where the folder holds none."""
    import pandas as pd

    folder = Path(folder)
    if not (folder / SETTINGS).is_file():
        raise InputError(f"{folder}: holds no study results ({SETTINGS} is missing); run `demur study` into it first")
    if missing := [name for name in _TABLES if not (folder / f"{name}.parquet").is_file()]:
        raise InputError(
            f"{folder}: lacks {missing[0]}.parquet, as studies of earlier versions do; "
            f"run its `demur study` again, which generates little"
        )
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    signals = pd.read_parquet(folder / SIGNALS)
    return Study(
        settings=settings,
        signals=np.stack(list(signals["signal"])).astype(np.float32),
        text_signals=np.stack(list(signals["text_signal"])).astype(np.float32),
        references=np.array(settings.pop("references"), dtype=np.float32),
        path=folder,
        **{name: pd.read_parquet(folder / f"{name}.parquet") for name in _TABLES},
    )
