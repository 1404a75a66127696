"""Table 13: what defenses block and what they cost, on the very same generations.

In: a subject, its model and the defenses. Out: a tidy table. Each defense's verdicts are kept in a file, so that a run
that was interrupted asks no model twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

from demur.defenses import AnyOf, Blocking, Cascade, Defense, GuardDefense, GuardModel, PerplexityFilter, SelfExamine
from demur.dynamics import Rate, wilson
from demur.errors import InputError
from demur.files.tables import read_table, write_table
from demur.guards.base import Guard
from demur.models import Model
from demur.recording import Recording
from demur.samplers import Sampler
from demur.studies.paper.material import OF_ATTACKS, PAPER_TABLES, PaperMaterial
from demur.studies.paper.overheads import overhead_of, overhead_table
from demur.studies.paper.published import DEFENSES, paper_model
from demur.studies.paper.subject import COLUMNS, Row, Subject
from demur.studies.study.detectors import DIRECTION, SRI, STREAMING, STREAMING_DIRECTION
from demur.studies.study.directions import CALIBRATION

STOPPED = "{}, refused or blocked"
"""The measure of what is refused or blocked of a group."""
TESTED = ("test_harmless", "test_harmful", "test_attacks")
GROUPS = {"harmless": "test_harmless", "harmful": "test_harmful", "all attacks": "test_attacks"}


@PAPER_TABLES.table(
    "table_13_defenses",
    columns=COLUMNS,
    title="Table 13: defenses, what they block and cost",
    needs=OF_ATTACKS,
    place=13,
)
def defenses(material: PaperMaterial) -> pd.DataFrame:
    """Table 13 of a model."""
    subject, model = material.subject, material.model
    chosen = defenses_of(subject, model, material.guard_models)
    return defense_table(subject, model, material.sampler, chosen, batch_size=material.batch_size, say=material.say)


def defenses_of(subject: Subject, model: Model, guard_models: Sequence[str] = ()) -> list[Defense]:
    """The defenses of the paper, the study's other guards, and some of them together."""
    direction, (looks, watching) = GuardDefense(subject.direction), subject.watched_direction
    sri = GuardDefense(subject.guard, subject.anchors)
    streaming = [GuardDefense(subject.streaming, subject.anchors), GuardDefense(watching, looks)]
    examine = SelfExamine(model)
    usual = subject.recordings[CALIBRATION].table["prompt"].tolist()
    filters: list[Defense] = [] if model.traits.likelihood is None else [PerplexityFilter(model).fit(usual)]
    models = [GuardModel(name) for name in guard_models]
    together = [AnyOf(sri, examine), *(AnyOf(direction, one) for one in filters)]
    asked: list[Defense] = [examine, *models]
    cascades = [Cascade(direction, one) for one in asked]
    return [*filters, examine, *models, sri, direction, *streaming, *together, *cascades]


def defense_table(
    subject: Subject,
    model: Model,
    sampler: Sampler,
    defenses: Sequence[Defense],
    *,
    batch_size: int = 16,
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """Every defense, and none: what it adds to the time of generation, and what is refused or blocked with it.

    Measures "overhead" (seconds added over those of generations timed beside it, see `overhead_table`, the count being
    those generations; a ratio without an interval), "refused or blocked" of each group (of harmless prompts the false
    positives), and "unread". Of a cascade also "asked, harmless": of how
    many its second defense is asked.
    """
    recordings = {name: subject.recordings[name] for name in TESTED if name in subject.recordings}
    timed = overhead_table(subject, model, sampler, defenses, list(recordings), batch_size)
    count = int(timed["generations"].iloc[0])
    rows: list[Row] = []
    published = DEFENSES.get(paper_model(subject.name) or "", {})
    for defense in [None, *defenses]:
        name = "none" if defense is None else defense.name
        theirs = published.get("guard model" if name.startswith("guard model") else name)
        found = {one: _verdicts(subject, defense, recording, one) for one, recording in recordings.items()}
        say(f"{name}: {sum(int(one['blocked'].sum()) for one in found.values())} blocked")
        ratio = 0.0 if defense is None else overhead_of(defense, timed)
        rows.append((name, "overhead", Rate(ratio, np.nan, np.nan, count), theirs and theirs[0] / 100))
        for place, (group, one) in enumerate(GROUPS.items()):
            if one in found:
                stopped = found[one]["blocked"] | recordings[one].table["refused"].to_numpy(dtype=bool)
                value = theirs[1 + place // 2] / 100 if theirs and group != "harmful" else None
                rows.append((name, STOPPED.format(group), wilson(int(stopped.sum()), len(stopped)), value))
        unread = np.concatenate([one["unread"] for one in found.values()])
        rows.append((name, "unread", wilson(int(unread.sum()), len(unread)), None))
        if isinstance(defense, Cascade) and (harmless := recordings.get(GROUPS["harmless"])) is not None:
            asked = _verdicts(subject, defense.first, harmless, GROUPS["harmless"])["blocked"]
            rows.append((name, "asked, harmless", wilson(int(asked.sum()), len(asked)), None))
    return subject.table(rows)


def _verdicts(subject: Subject, defense: Defense | None, recording: Recording, name: str) -> pd.DataFrame:
    """What a defense makes of a recording: blocked, seconds, unread; from its file where it is of the same make.

    The study has scored every generation by its own guards, so these read nothing again.

    What could not be read stays so: the models are greedy and would answer alike.
    """
    if defense is None:
        return pd.DataFrame({"blocked": False, "seconds": 0.0, "unread": False}, index=range(len(recording)))
    if isinstance(defense, AnyOf | Cascade):  # its parts have answered already
        of = defense.defenses if isinstance(defense, AnyOf) else (defense.first, defense.second)
        tables = [_verdicts(subject, part, recording, name) for part in of]
        parts = [Blocking(*(part[field].to_numpy() for field in Blocking._fields)) for part in tables]
        joined = AnyOf.joined(parts) if isinstance(defense, AnyOf) else Cascade.joined(*parts)
        return pd.DataFrame(joined._asdict())
    if isinstance(defense, GuardDefense) and (own := _own_guard(subject, defense)):
        column, guard = own
        scores = subject.study.scores.loc[(subject.study.generations["set"] == name).to_numpy(), column]
        blocked = ~(scores.to_numpy() <= guard.threshold_)  # no number is flagged too
        return pd.DataFrame({"blocked": blocked, "seconds": 0.0, "unread": False})
    made: dict[str, Any] = {"defense": defense.describe(), "recording": recording.provenance.key()}
    key = hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest()[:16]
    path = subject.path / "defenses" / f"{name}-{key}.parquet"
    table = recording.table
    with suppress(InputError):  # missing, damaged or without a hash: asked again
        kept = read_table(path, Blocking._fields).table
        if len(kept) == len(table):
            return kept
    found = pd.DataFrame(defense(table["prompt"].tolist(), table["text"].tolist(), recording)._asdict())
    write_table(path, found)
    return found


def _own_guard(subject: Subject, defense: GuardDefense) -> tuple[str, Guard] | None:
    """The guard of this defense with the column of the study's scores that holds its own, if it is the study's."""
    guards: dict[str, Guard] = {SRI: subject.guard, DIRECTION: subject.direction, STREAMING: subject.streaming}
    guards[STREAMING_DIRECTION] = subject.watched_direction[1]
    return next(((column, guard) for column, guard in guards.items() if guard is defense.guard), None)
