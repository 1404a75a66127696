"""`Study`: the results of a study, as tidy tables in a folder.

In: the tables that the other modules here compute. Out: Parquet files, one JSON of settings, and the same
read back. Nothing is computed here, and nothing drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.errors import InputError
from demur.files.manifests import read_manifest, write_manifest
from demur.files.seals import allow_unverified as allowing
from demur.files.staging import found, switched
from demur.files.tables import read_table, write_table
from demur.notebook import facts, sampler_words, table

if TYPE_CHECKING:
    import pandas as pd

    from demur.studies.study.made import Made

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


@dataclass(frozen=True, repr=False)
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
    made : the recordings, anchors and guards, where this process has just made them; else None.
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
    made: Made | None = field(default=None, repr=False, compare=False)

    def __repr__(self) -> str:
        model, count = self.settings.get("model"), len(self.generations)
        return f"Study({str(self.path)!r}, model={model!r}, generations={count}, steps={self.steps})"

    def _repr_html_(self) -> str:
        chosen = self.rates[self.rates["rate"].str.match("RR|ASR")]
        columns = ["rate", "group", "value", "low", "high", "count"]
        rows = table(columns, chosen[columns].itertuples(index=False, name=None))
        made = {"model": self.settings.get("model"), "sampler": sampler_words(self.settings.get("sampler") or {})}
        return facts(f"Study {self.path}", {**made, "generations": len(self.generations), "steps": self.steps}, rows)

    @property
    def steps(self) -> int:
        """T, the number of steps."""
        return int(self.signals.shape[1])

    def save(self, folder: str | Path) -> None:
        """Write every table as Parquet, the signals as one wide table, the settings as JSON: all at once or nothing.

        The settings hold the hash of each table, so that tables of two studies are never read together.
        """
        import pandas as pd

        columns = {
            kind: list(values) for kind, values in (("signal", self.signals), ("text_signal", self.text_signals))
        }
        signals = pd.DataFrame({"set": self.generations["set"], "id": self.generations["id"], **columns})
        tables = {f"{name}.parquet": getattr(self, name) for name in _TABLES} | {SIGNALS: signals}
        references = self.references.astype(float).round(6).tolist()
        with switched(Path(folder), SETTINGS) as new:
            hashes = {name: write_table(new / name, table) for name, table in tables.items()}
            write_manifest(new / SETTINGS, {**self.settings, "references": references, "tables": hashes})


_TABLES = tuple(f.name for f in fields(Study) if f.type == "pd.DataFrame")


def is_study(folder: Path) -> bool:
    """Whether a folder holds the results of a study."""
    return found(folder, SETTINGS).is_file()


def read_study(folder: str | Path, *, allow_unverified: bool = False) -> Study:
    """Read the results that `Study.save` wrote.

    allow_unverified : read studies of demur 0.1 too, whose tables carry no hash.
    Raises `InputError` where the folder holds none, or where a table is damaged or of another study.
    """
    folder = Path(folder)
    if not is_study(folder):
        raise InputError(f"{folder}: holds no study results ({SETTINGS} is missing); run `demur study` into it first")
    with allowing(allow_unverified):
        settings = read_manifest(found(folder, SETTINGS))
        tables = _read_tables(folder, settings.pop("tables", None))
    try:
        signals, references = tables.pop("signals"), np.array(settings.pop("references"), dtype=np.float32)
        both = [np.stack(list(signals[name])).astype(np.float32) for name in ("signal", "text_signal")]
        study = Study(
            settings=settings,
            signals=both[0],
            text_signals=both[1],
            references=references,
            path=folder,
            made=None,
            **tables,
        )
        _require_sound(study)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}: its tables do not fit together ({error}); run its `demur study` again") from error
    return study


def _read_tables(folder: Path, hashes: Any) -> dict[str, pd.DataFrame]:
    tables = {}
    for name in (*_TABLES, "signals"):
        file = f"{name}.parquet"
        if not found(folder, file).is_file():
            raise InputError(
                f"{folder}: lacks {file}, as studies of earlier versions do; "
                f"run its `demur study` again, which generates little"
            )
        expected = hashes.get(file) if isinstance(hashes, dict) else None
        tables[name] = read_table(found(folder, file), expected=expected).table
    return tables


def _require_sound(study: Study) -> None:
    """Raise `ValueError` for arrays that are not what `Study` says; those of verified files always are."""
    count, steps = study.signals.shape
    if len(study.generations) != count or study.text_signals.shape != (count, steps):
        raise ValueError(f"{len(study.generations)} generations and signals of shape {study.signals.shape}")
    if study.references.shape != (2, steps):
        raise ValueError(f"references of shape {study.references.shape} for {steps} steps")
    for name, values in (("signals", study.signals), ("text signals", study.text_signals)):
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"{name} outside 0 to 1")
    missing = {"set", "id"} - set(study.generations.columns)
    if missing:
        raise KeyError(f"generations without {min(missing)!r}")
