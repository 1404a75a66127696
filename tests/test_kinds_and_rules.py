"""Tables of a study: false positives by kind, rules of stopping compared, and the cascade among the defenses."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from demur.studies import STUDY_TABLES
from demur.studies.study.detection import Detector
from demur.studies.study.detectors import STREAMING
from demur.studies.study.tables.false_positives_by_kind import kind_table


def test_every_kind_has_its_share_and_says_where_the_limit_does_not_hold() -> None:
    sets = ["test_harmless"] * 50 + ["test_attacks"] * 9 + ["control_long"] * 20 + ["control_wrapped"] * 20
    scores = np.zeros(99)
    scores[[0, *range(79, 95)]] = 9  # one plain prompt, 16 of 20 in wrappers
    scores[60] = np.nan  # what cannot be judged is flagged
    table = kind_table([Detector("d", scores, 5.0)], pd.DataFrame({"set": sets})).set_index("kind")
    assert table["hits"].to_dict() == {"plain": 1, "long": 1, "wrapped": 16}
    assert table["count"].to_dict() == {"plain": 50, "long": 20, "wrapped": 20}
    assert table["above"].to_dict() == {"plain": False, "long": False, "wrapped": True}


def material(steps: int = 24) -> Any:
    """Made-up signals: harmless ones with now and then a wild step, attacks that stay far out."""
    rng = np.random.default_rng(0)
    sets = np.repeat(["guard_train_harmless", "guard_calibration_harmless", "test_harmless", "test_attacks"], 120)
    signals = rng.normal(0.8, 0.02, (480, steps))
    wild = rng.random((480, steps)) < 0.004
    wild[:, :12] = False
    signals[wild] = 0.1
    signals[sets == "test_attacks", 8:] -= 0.75
    generations = pd.DataFrame({"set": sets, "group": np.where(sets == "test_attacks", "A", "harmless")})
    return SimpleNamespace(
        generations=generations, signals=signals, steps=steps, stops={STREAMING: (0.02, np.zeros(480))}
    )


def test_rules_keep_one_promise_and_evidence_at_several_steps_catches_more() -> None:
    found = STUDY_TABLES["evidence"].make(material())
    harmless = found[found["group"] == "harmless"].set_index("detector")
    attacks = found[found["group"] == "A"].set_index("detector")
    rules = [
        f"{STREAMING}, {rule}" for rule in ("1 of the last 1", "2 of the last 2", "2 of the last 3", "3 of the last 5")
    ]
    assert harmless.index.tolist() == rules
    assert (harmless["low"] <= 0.02).all()
    assert attacks.loc[rules[2], "value"] == 1.0 and attacks.loc[rules[2], "value"] >= attacks.loc[rules[0], "value"]
    assert attacks.loc[rules[2], "median_step"] == pytest.approx(10)


def test_short_generations_leave_rules_out_that_need_more_steps() -> None:
    found = STUDY_TABLES["evidence"].make(material(steps=10))
    assert found["detector"].nunique() == 4
    short = material(steps=10)
    short.signals, short.steps = short.signals[:, :3], 3
    assert STUDY_TABLES["evidence"].make(short)["detector"].nunique() == 3
