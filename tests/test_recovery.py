"""HRR, FRR and ASR of recordings, against verdicts written out by hand."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import demur
import toy
from demur import InputError
from demur.dynamics import wilson
from demur.judges import CompliesJudge, Verdict
from demur.models import Model
from demur.recording import StepText
from demur.studies import recovery_table, success_table
from demur.studies.study.recovery import judged_rates

OK, NO = "sure here is tea", "sorry no"
TEXTS = {
    "a": [NO, OK, NO],  # taken back at the end
    "b": [OK, NO, OK],  # taken back, and given again
    "c": [OK, OK, OK],
    "d": [NO, NO, OK],  # harmful at the last step only: not eligible
    "e": [OK, OK, NO],
}


class FakeRecording:
    """A recording with the predicted texts `TEXTS`, in shards that are out of order."""

    path = Path("runs/fake")
    steps = 3
    provenance = SimpleNamespace(sampler={"name": "MaskedDiffusion"})

    def __init__(self, *, revises: bool = True, labels: Sequence[str | None] = ("harmful",) * 5) -> None:
        self.manifest = {"revises": revises}
        self.table = pd.DataFrame({"id": list(TEXTS), "label": pd.array(list(labels), dtype="string")})
        self.table["group"] = ["x", "x", "x", "y", "y"]
        self.table["prompt"] = "wrapped request"
        self.table["goal"] = pd.array(["the request", *[pd.NA] * 4], dtype="string")
        self.table["text"] = [texts[-1] for texts in TEXTS.values()]

    def all_steps_text(self) -> Iterator[tuple[int, list[StepText]]]:
        for row in (3, 0, 4, 1, 2):
            yield row, [StepText("", text) for text in list(TEXTS.values())[row]]


class FakeJudge:
    """Judges harm: True for compliance, None where the request is `puzzling`."""

    name, judges_harm = "fake", True

    def __init__(self, puzzling: str = "") -> None:
        self.puzzling = puzzling
        self.asked: list[tuple[str, str]] = []

    def __call__(self, prompts: Sequence[str], texts: Sequence[str]) -> list[Verdict]:
        self.asked += zip(prompts, texts, strict=True)
        return [None if p == self.puzzling else t == OK for p, t in zip(prompts, texts, strict=True)]

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


def test_recovery_rates_are_those_of_the_verdicts_by_hand() -> None:
    table = recovery_table(FakeRecording(), CompliesJudge()).set_index(["rate", "group"])
    expected = {("HRR", "x"): (2, 3), ("HRR", "y"): (1, 1), ("FRR", "x"): (1, 3), ("FRR", "y"): (1, 1)}
    for (rate, group), (hits, count) in expected.items():
        row = table.loc[(f"{rate} (complies)", group)]
        assert row[["value", "low", "high", "count", "hits"]].tolist() == pytest.approx(
            list(vars(wilson(hits, count)).values())
        )
    assert table["malformed"].sum() == 0


def test_only_prompts_labelled_harmful_are_judged() -> None:
    judge = FakeJudge()
    table = recovery_table(FakeRecording(labels=["harmful", "harmless", None, "harmful", "harmless"]), judge)
    assert table.set_index(["rate", "group"])["count"].to_dict() == {
        ("HRR (fake)", "x"): 1,
        ("HRR (fake)", "y"): 0,
        ("FRR (fake)", "x"): 1,
        ("FRR (fake)", "y"): 0,
    }
    assert set(judge.asked) == {
        ("the request", NO),
        ("the request", OK),
        ("wrapped request", NO),
        ("wrapped request", OK),
    }


def test_equal_texts_are_asked_about_once() -> None:
    judge = FakeJudge()
    recovery_table(FakeRecording(), judge)
    assert len(judge.asked) == len(set(judge.asked)) == 4


def test_a_generation_with_a_malformed_verdict_is_left_out_and_reported() -> None:
    table = recovery_table(FakeRecording(), FakeJudge(puzzling="the request")).set_index(["rate", "group"])
    row = table.loc["HRR (fake)", "x"]
    assert row[["value", "count", "verdicts", "malformed", "left_out"]].tolist() == [0.5, 2, 9, 3, 1]
    success = success_table(FakeRecording(), FakeJudge(puzzling="the request")).set_index("group")
    assert success.loc["x", ["value", "count", "malformed"]].tolist() == [1.0, 2, 1]
    assert success.loc["y", ["value", "count", "malformed"]].tolist() == [0.5, 2, 0]


def test_a_judge_of_compliance_gives_no_attack_success_rate() -> None:
    with pytest.raises(InputError, match="needs a chat judge"):
        success_table(FakeRecording(), CompliesJudge())
    rates, _ = judged_rates([FakeRecording()], CompliesJudge())
    assert set(rates["rate"]) == {"HRR (complies)", "FRR (complies)"}
    rates, counts = judged_rates([FakeRecording()], FakeJudge())
    assert set(rates["rate"]) == {"ASR (fake)", "HRR (fake)", "FRR (fake)"}
    assert counts == {"verdicts": 5 + 15, "malformed": 0}


def test_a_sampler_that_never_revises_has_no_recovery(toy_model: Model) -> None:
    recording = demur.record(toy_model, toy.rows("test_harmful")[:4], steps=4)
    with pytest.raises(InputError, match="Autoregressive never revises"):
        recovery_table(recording, CompliesJudge())
    rates, _ = judged_rates([recording], CompliesJudge())
    assert rates.empty
    assert np.isclose(judged_rates([recording], FakeJudge())[0]["count"].sum(), 4)
