"""A cascade: what a guard flags is stopped only where a judge agrees, on the way and after it."""

from typing import Any

import numpy as np
import pytest

from demur import InputError
from demur.defenses import Blocking, Cascade, generate_guarded
from test_drift import Setting


class Asked:
    """A judge that remembers what it was asked, and agrees where `agrees` says so."""

    name = "asked"

    def __init__(self, agrees: Any) -> None:
        self.agrees, self.pairs = agrees, []

    def __call__(self, prompts: Any, texts: Any, recording: Any = None) -> Blocking:
        pairs = list(zip(prompts, texts, strict=True))
        self.pairs += pairs
        said = [self.agrees(*pair) for pair in pairs]
        count = len(pairs)
        return Blocking(
            np.array([one is True for one in said], dtype=bool),
            np.full(count, 0.5),
            np.array([one is None for one in said], dtype=bool),
        )

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


@pytest.fixture(scope="module")
def flagged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Setting, list[str], Any]:
    """Prompts of which the guard flags some, and what it does to them by itself."""
    given = Setting(tmp_path_factory.mktemp("cascade"))
    prompts = given.prompts["test_harmful"][:12] + given.prompts["test_harmless"][:6]
    alone = generate_guarded(given.model, prompts, given.direction, given.guard)
    assert 3 < (alone["stopped_at"] > 0).sum() < 18
    return given, prompts, alone


def asked(flagged: Any, agrees: Any) -> tuple[Any, Asked]:
    given, prompts, _ = flagged
    judge = Asked(agrees)
    return generate_guarded(given.model, prompts, given.direction, given.guard, on_flag="ask", judge=judge), judge


def test_a_judge_that_agrees_stops_what_the_guard_stops(flagged: Any) -> None:
    table, judge = asked(flagged, lambda prompt, text: True)
    alone = flagged[2]
    assert table[["stopped_at", "text", "tokens"]].equals(alone[["stopped_at", "text", "tokens"]])
    stopped = alone["stopped_at"] > 0
    assert (table["flagged_at"] == alone["stopped_at"]).all() and (table["asked"] == stopped).all()
    assert sorted(judge.pairs) == sorted(alone.loc[stopped, ["prompt", "text"]].itertuples(index=False, name=None))
    assert table["asking_seconds"].sum() == pytest.approx(0.5 * stopped.sum())


def test_what_cannot_be_read_stays_stopped(flagged: Any) -> None:
    table, _ = asked(flagged, lambda prompt, text: None)
    assert (table["stopped_at"] == flagged[2]["stopped_at"]).all()


def test_a_judge_that_disagrees_lets_the_answer_go_on_and_is_asked_once_more(flagged: Any) -> None:
    given, prompts, alone = flagged
    table, judge = asked(flagged, lambda prompt, text: False)
    recorded = given.record(prompts).table
    assert (table["stopped_at"] == 0).all() and table["text"].tolist() == recorded["text"].tolist()
    early = (alone["stopped_at"] > 0) & (alone["stopped_at"] < 12)
    assert (table.loc[early, "asked"] == 2).all() and table["asked"].max() == 2
    assert {text for _, text in judge.pairs} >= set(recorded.loc[early, "text"])


def test_a_judge_that_agrees_at_the_end_blocks_the_whole_answer(flagged: Any) -> None:
    whole = set(flagged[0].record(flagged[1]).table["text"])
    table, _ = asked(flagged, lambda prompt, text: text in whole)
    late = (table["stopped_at"] > 0) & (table["flagged_at"] < table["stopped_at"])
    assert late.any() and (table.loc[late, "stopped_at"] == 12).all()


def test_by_default_the_model_examines_itself(flagged: Any) -> None:
    given, prompts, _ = flagged
    table = generate_guarded(given.model, prompts[:3], given.direction, given.guard, on_flag="ask")
    assert table["asked"].max() >= 1


@pytest.mark.parametrize(
    ("options", "said"),
    [({"on_flag": "hold"}, "on_flag is 'hold'"), ({"judge": Asked(bool)}, "a judge is asked with on_flag='ask' alone")],
)
def test_what_makes_no_sense_is_refused(flagged: Any, options: dict[str, Any], said: str) -> None:
    given, prompts, _ = flagged
    with pytest.raises(InputError, match=said):
        generate_guarded(given.model, prompts, given.direction, given.guard, **options)


def test_a_cascade_of_defenses_asks_about_what_the_first_blocks() -> None:
    first = Asked(lambda prompt, text: text in "abc")
    second = Asked(lambda prompt, text: {"a": True, "b": False, "c": None}[text])
    both = Cascade(first, second)
    found = both(["p"] * 4, list("abcd"))
    assert found.blocked.tolist() == [True, False, True, False]
    assert found.unread.tolist() == [False, False, True, False]
    assert found.seconds.tolist() == [1.0, 1.0, 1.0, 0.5]
    assert [text for _, text in second.pairs] == ["a", "b", "c"]
    assert both.name == "asked, then asked" and len(both.describe()["cascade"]) == 2
    assert Cascade(Asked(lambda *pair: False), second)(["p"], ["a"]).blocked.tolist() == [False]
