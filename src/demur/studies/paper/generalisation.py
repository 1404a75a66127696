"""How a guard fares on what its choice and its calibration never saw.

In: a subject. Out: tidy tables: the detector chosen on all attacks but one, measured on that one; attacks against
harmless prompts of other kinds; and the false-positive rate that a limit gives against the one it was set for.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from demur.dynamics import Rate, wilson
from demur.studies.paper.subject import Row, Subject
from demur.studies.study.controls import PREFIX
from demur.studies.study.detection import auroc
from demur.studies.study.detectors import CALIBRATION, MAIN

NOMINAL = (0.01, 0.02, 0.05, 0.1, 0.2)
SET_FOR = "{}, set for {:.0%}"


def leave_one_attack_out_table(subject: Subject) -> pd.DataFrame:
    """For each attack the detector with the best mean AUROC on the others, and how it does on this one."""
    rows = subject.study.detection[subject.study.detection["subset"] == "all"]
    areas = rows.pivot_table(index="detector", columns="group", values="auroc").reindex(columns=subject.attacks)
    found: list[Row] = []
    notes: list[str] = []
    for attack in subject.attacks if len(subject.attacks) > 1 else []:
        best = str(areas.drop(columns=attack).mean(axis=1).idxmax())
        row = rows[(rows["detector"] == best) & (rows["group"] == attack)].iloc[0]
        count = int(row["positives"] + row["negatives"])
        caught = Rate(row["tpr"], row["tpr_low"], row["tpr_high"], int(row["positives"]))
        found.append((attack, "AUROC", Rate(row["auroc"], row["auroc_low"], row["auroc_high"], count), None))
        found.append((attack, "caught", caught, None))
        notes += [best, best]
    return subject.table(found, notes)


def cross_dataset_table(subject: Subject) -> pd.DataFrame:
    """AUROC of each attack against each set of harmless test and control prompts, for the guards of `MAIN`."""
    study = subject.study
    found: list[Row] = []
    sets, groups = study.generations["set"].to_numpy(dtype=str), study.generations["group"].to_numpy(dtype=str)
    harmless = [one for one in dict.fromkeys(sets) if one == "test_harmless" or one.startswith(PREFIX)]
    for detector in MAIN:
        scores = study.scores[detector].to_numpy()
        for source in harmless:
            for attack in subject.attacks:
                positives = scores[(sets == "test_attacks") & (groups == attack)]
                name = source.removeprefix(PREFIX).replace("_", " ")
                found.append((attack, f"{detector}, against {name}", auroc(scores[sets == source], positives), None))
    return subject.table(found)


def calibration_table(subject: Subject) -> pd.DataFrame:
    """False positives on harmless test prompts, and all attacks caught, at limits set for each rate of `NOMINAL`."""
    study = subject.study
    found: list[Row] = []
    sets = study.generations["set"].to_numpy(dtype=str)
    for detector in study.scores.columns:
        scores = study.scores[detector].to_numpy()
        for nominal in NOMINAL:
            over = scores > np.quantile(scores[sets == CALIBRATION], 1 - nominal)
            for what, chosen in (("flagged, harmless", "test_harmless"), ("caught, all attacks", "test_attacks")):
                hits = over[sets == chosen]
                rate = wilson(int(hits.sum()), len(hits))
                found.append((detector, SET_FOR.format(what, nominal), rate, None))
    return subject.table(found)
