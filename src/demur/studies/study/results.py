"""`Study`: the results of a study, as tidy tables in a folder.

In: what `analyse` computes. Out: Parquet files, one JSON of settings, and the same
read back. Nothing is computed here, and nothing drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from demur.errors import InputError
from demur.files.listed import FILES, require_hashes
from demur.files.manifests import read_manifest, write_manifest
from demur.files.seals import allow_unverified as allowing
from demur.files.staging import found, switched
from demur.files.tables import read_table, write_table
from demur.notebook import facts, sampler_words, table
from demur.studies.study.tables import STUDY_TABLES

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
CORE = ("generations", "scores", "signals")
"""The tables that every study has."""


@dataclass(frozen=True, repr=False, init=False, eq=False)
class Study:
    """The results of one model under one sampler.

    settings : model, sampler, layers, thresholds, counts, versions, hashes of anchors and guards; plain values.
    generations : a row a generation of the test sets and the guard's sets, with the columns set, id, group,
        label, attack, goal, category, prompt, text, refused, tokens, prompt_tokens, seconds, answer_tokens (those
        before the end-of-sequence), final_signal, mean_signal, guard_error, flagged.
    scores : a column a detector, higher is stranger, in the row order of `generations`.
    signals, text_signals : float32 ``[generations, steps]``, in the row order of `generations`.
    references : float32 ``[2, steps]``: mean signal of the harmless prompts that were answered and of the
        harmful ones that were refused, among the anchor prompts.
    tables : every table of `STUDY_TABLES` by name, each also an attribute; a table that the folder of the study lacks
        is one without rows there. demur's own:
        rates : rate, group, threshold, value, low, high, count. `rate` is RR, "RR with guard" or IRR, and with the
        judge's name behind it HRR, FRR (samplers that revise) or ASR (judges of harm); `threshold` is lambda_r
        for IRR, else missing.
        detection : detector, group, subset ("all" or "complied"), auroc, auroc_low, auroc_high, tpr, tpr_low,
        tpr_high, positives, negatives; attacks against the harmless test prompts.
        false_positives : detector, group, value, low, high, count; harmless prompts that are flagged.
        controls : as `false_positives` for every control set, and attacks against it; see `control_table`.
        correlations : detector, length, value, low, high, count; of the scores of harmless prompts with lengths.
        streaming : detector, group, alpha, value, low, high, count (share stopped), median_step, median_saved.
        hardening, hardening_left_out : only of a study with hardened guards; see `hardened.by_kind` and
        `left_out.left_out_table`.
        projection : place (row of `generations`), kind ("harmless", "refused", "complied under attack"), x, y.
    made : the recordings, anchors and guards, where this process has just made them; else None.
    """

    settings: dict[str, Any]
    generations: pd.DataFrame
    scores: pd.DataFrame
    signals: np.ndarray
    text_signals: np.ndarray
    references: np.ndarray
    tables: Mapping[str, pd.DataFrame]
    path: Path
    made: Made | None

    def __init__(
        self,
        settings: dict[str, Any],
        generations: pd.DataFrame,
        scores: pd.DataFrame,
        signals: np.ndarray,
        text_signals: np.ndarray,
        references: np.ndarray,
        tables: Mapping[str, pd.DataFrame] | None = None,
        path: Path = Path(),
        made: Made | None = None,
        **more: pd.DataFrame,
    ) -> None:
        """`more` are tables by name, in place of those in `tables`."""
        values = {name: value for name, value in locals().items() if name not in ("self", "more")}
        for name, value in {**values, "tables": {**(tables or {}), **more}}.items():
            object.__setattr__(self, name, value)

    def __getattr__(self, name: str) -> pd.DataFrame:
        tables: Mapping[str, pd.DataFrame] = vars(self).get("tables", {})
        if name in tables:
            return tables[name]
        if name in STUDY_TABLES:
            return STUDY_TABLES[name].empty()
        raise AttributeError(f"a Study has no table or attribute {name!r}")

    @property
    def missing(self) -> list[str]:
        """The tables that this study lacks, as one of an earlier version does."""
        return [name for name in STUDY_TABLES if name not in self.tables]

    def with_tables(self, **tables: pd.DataFrame) -> Study:
        """This study with these tables, by name, in place of its own or added."""
        return replace(self, tables={**self.tables, **tables})

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
        tables = {"generations": self.generations, "scores": self.scores, **self.tables, "signals": signals}
        settings = dict(self.settings)
        if listed := settings.get(FILES):  # a folder that only takes the tables has none of these files
            settings[FILES] = {name: listed[name] for name in listed if found(Path(folder), name).is_file()}
        references = self.references.astype(float).round(6).tolist()
        with switched(Path(folder), SETTINGS) as new:
            hashes = {f"{name}.parquet": write_table(new / f"{name}.parquet", one) for name, one in tables.items()}
            write_manifest(new / SETTINGS, {**settings, "references": references, "tables": hashes})


def is_study(folder: Path) -> bool:
    """Whether a folder holds the results of a study."""
    return found(folder, SETTINGS).is_file()


def read_study(folder: str | Path, *, allow_unverified: bool = False) -> Study:
    """Read the results that `Study.save` wrote.

    allow_unverified : read studies of demur 0.1 too, whose tables carry no hash.
    Raises `InputError` where the folder holds none, or where a table, anchors or a guard is damaged or of another
    study.
    """
    folder = Path(folder)
    if not is_study(folder):
        raise InputError(f"{folder}: holds no study results ({SETTINGS} is missing); run `demur study` into it first")
    with allowing(allow_unverified):
        settings = read_manifest(found(folder, SETTINGS))
        require_hashes(folder, settings.get(FILES), SETTINGS)
        tables = _read_tables(folder, settings.pop("tables", None))
    try:
        signals, references = tables.pop("signals"), np.array(settings.pop("references"), dtype=np.float32)
        both = [np.stack(list(signals[name])).astype(np.float32) for name in ("signal", "text_signal")]
        study = Study(
            settings=settings,
            generations=tables.pop("generations"),
            scores=tables.pop("scores"),
            signals=both[0],
            text_signals=both[1],
            references=references,
            tables=tables,
            path=folder,
        )
        _require_sound(study)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{folder}: its tables do not fit together ({error}); run its `demur study` again") from error
    return study


def _read_tables(folder: Path, hashes: Any) -> dict[str, pd.DataFrame]:
    """The tables that the settings name, of plugins too; of settings without hashes those that are there."""
    known = hashes if isinstance(hashes, dict) else {}
    named = [Path(file).stem for file in known] or [n for n in STUDY_TABLES if found(folder, f"{n}.parquet").is_file()]
    tables = {}
    for name in dict.fromkeys([*CORE, *named]):
        file = f"{name}.parquet"
        if not found(folder, file).is_file():
            raise InputError(f"{folder}: lacks {file}; run its `demur study` again, which generates little")
        tables[name] = read_table(found(folder, file), expected=known.get(file)).table
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
