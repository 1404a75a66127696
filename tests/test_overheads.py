"""What a defense costs is divided by the generation that was timed beside it, and by no other."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import demur
from demur.defenses import AnyOf, Blocking, Cascade
from demur.models import Model
from demur.recording import Recording
from demur.studies.paper import overheads
from demur.studies.paper.overheads import overhead_of, overhead_table
from demur.studies.paper.subject import Subject
from demur.studies.paper.tables.defenses import defense_table

PROMPTS = [f"Tell me how to bake bread number {number}." for number in range(5)]
SETS = ["test_harmless", "test_harmful"]


class Timed:
    """A defense that takes a second a generation and blocks none."""

    def __init__(self, name: str, seconds: float = 1.0) -> None:
        self.name, self.seconds, self.asked = name, seconds, 0

    def __call__(self, prompts: Any, texts: Any, recording: Recording | None = None) -> Blocking:
        assert recording is not None and len(recording) == len(prompts) == len(texts)
        self.asked += len(prompts)
        none = np.zeros(len(prompts), dtype=bool)
        return Blocking(none, np.full(len(prompts), self.seconds), none)

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


@pytest.fixture(scope="module")
def model() -> Model:
    return demur.load("demur/tiny-ar", device="cpu")


@pytest.fixture
def subject(model: Model, tmp_path: Path) -> Any:
    recordings = {name: demur.record(model, PROMPTS, steps=2) for name in SETS}
    found = SimpleNamespace(
        name="toy", path=tmp_path, recordings=recordings, anchors=SimpleNamespace(layers=(model.layer_count,))
    )
    found.table = lambda rows, notes=None: Subject.table(found, rows, notes)  # type: ignore[arg-type]
    return found


def test_both_are_timed_in_one_run_and_kept_with_what_they_were_measured_on(
    subject: Any, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overheads, "TIMED", 3)
    sampler, one, two = model.default_sampler(steps=2), Timed("one"), Timed("two", 2.0)
    both = AnyOf(one, two)
    found = overhead_table(subject, model, sampler, [one, two, both], SETS, 4)
    assert found["defense"].tolist() == ["one", "two"] and found["seconds"].tolist() == [6.0, 12.0]
    assert (found["generations"] == 6).all() and (found["batch_size"] == 4).all() and found["run"].nunique() == 1
    took = found["generation_seconds"].iloc[0]
    assert took > 0 and found["generation_seconds"].nunique() == 1
    assert overhead_of(both, found) == pytest.approx(18 / took)
    assert one.asked == 4 + 6  # a batch first that is not counted
    again = overhead_table(subject, model, sampler, [one, two, both], SETS, 4)
    assert again.equals(found) and one.asked == 10


@pytest.mark.parametrize("change", ["defense", "batch", "sampler", "torn", "host"])
def test_seconds_of_another_make_or_machine_are_measured_again_all_of_them(
    subject: Any, model: Model, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    defenses = [Timed("one")]
    first = overhead_table(subject, model, model.default_sampler(steps=2), defenses, SETS, 4)
    path = subject.path / "defenses" / "overheads.parquet"
    if change == "defense":
        defenses.append(Timed("two"))
    elif change == "torn":
        path.write_bytes(path.read_bytes()[:100])
    elif change == "host":
        monkeypatch.setattr("platform.node", lambda: "another machine")
    sampler = model.default_sampler(steps=3 if change == "sampler" else 2)
    second = overhead_table(subject, model, sampler, defenses, SETS, 5 if change == "batch" else 4)
    assert set(second["run"]).isdisjoint(first["run"]) and len(second) == len(defenses)


def test_the_table_divides_what_was_timed_together(subject: Any, model: Model) -> None:
    found = defense_table(subject, model, model.default_sampler(steps=2), [Timed("one")], batch_size=4)
    rows = found[found["measure"] == "overhead"].set_index("group")
    kept = overhead_table(subject, model, model.default_sampler(steps=2), [Timed("one")], SETS, 4)
    assert rows.loc["none", "value"] == 0
    assert rows.loc["one", "value"] == pytest.approx(kept["seconds"].iloc[0] / kept["generation_seconds"].iloc[0])
    assert rows.loc["one", "count"] == 10
    judged = sorted((subject.path / "defenses").glob("test_*.parquet"))
    judged[0].write_bytes(b"torn")
    again = defense_table(subject, model, model.default_sampler(steps=2), [Timed("one")], batch_size=4)
    assert again.equals(found)


class Blocks(Timed):
    """Blocks the first so many generations that it is given."""

    def __init__(self, name: str, count: int) -> None:
        super().__init__(name)
        self.count = count

    def __call__(self, prompts: Any, texts: Any, recording: Recording | None = None) -> Blocking:
        self.asked += len(prompts)
        blocked = np.arange(len(prompts)) < self.count
        return Blocking(blocked, np.full(len(prompts), self.seconds), np.zeros(len(prompts), dtype=bool))


def test_a_cascade_has_both_costs_and_both_error_rates_in_the_table(subject: Any, model: Model) -> None:
    guard, judge = Blocks("guard", 3), Blocks("judge", 2)
    cascade = Cascade(guard, judge)
    found = defense_table(subject, model, model.default_sampler(steps=2), [guard, judge, cascade], batch_size=4)
    rows = found.set_index(["group", "measure"])["value"]
    name = "guard, then judge"
    harmless = "harmless, refused or blocked"
    assert rows[name, harmless] == rows["judge", harmless] <= rows["guard", harmless]
    assert rows[name, "harmful, refused or blocked"] <= rows["guard", "harmful, refused or blocked"]
    assert rows[name, "asked, harmless"] == pytest.approx(3 / 5)
    assert rows[name, "overhead"] / rows["guard", "overhead"] == pytest.approx(
        13 / 10
    )  # 10 timed, 3 of them asked about
