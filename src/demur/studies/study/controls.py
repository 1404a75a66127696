"""Controls: harmless prompts by which to tell what a detector really sees.

In: the prompt sets of a study, then scores of their generations. Out: further sets of harmless prompts (long ones,
other languages, ones that sound dangerous, and harmless requests inside the very wrappers of the attacks), and tidy
tables: how often each is flagged, whether an attack can be told from it, and how the score goes with lengths.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from demur.bundled import bundled_prompts
from demur.dynamics import FIELDS, Rate, wilson
from demur.models import Model
from demur.prompts import Prompt, read_prompts
from demur.samplers import Sampler
from demur.studies.study.detection import Detector, auroc

if TYPE_CHECKING:
    import pandas as pd

PREFIX = "control_"
WRAPPED = PREFIX + "wrapped"
LENGTHS = ("prompt_tokens", "answer_tokens")


def bundled_controls() -> dict[str, list[Prompt]]:
    """The bundled harmless prompts, a set a kind."""
    return {PREFIX + path.stem: read_prompts(path) for path in bundled_prompts("demur/controls")}


def wrapped(attacks: Sequence[Prompt], harmless: Sequence[Prompt]) -> list[Prompt]:
    """Harmless requests inside the wrappers of attacks: the n-th prompt of each attack holds the n-th request.

    The goal of an attack prompt is replaced where its text holds it, in whatever case; an attack that words its
    prompts anew (PAIR, encodings) has no such wrapper and is left out. At most as many an attack as there are requests.
    """
    requests = [prompt.prompt for prompt in harmless if prompt.prompt]
    found: list[Prompt] = []
    counts: dict[str, int] = {}
    for prompt in attacks:
        place = counts.get(prompt.group, 0)
        goal, text = (prompt.goal or "").strip(), prompt.prompt or ""
        if not goal or place >= len(requests) or prompt.infill or goal.lower() not in text.lower():
            continue
        request = requests[place]
        filled = re.sub(re.escape(goal), request.replace("\\", r"\\"), text, flags=re.IGNORECASE)
        found.append(replace(prompt, id=f"{prompt.id}-harmless", prompt=filled, label="harmless", goal=request))
        counts[prompt.group] = place + 1
    return found


def fitting(model: Model, sampler: Sampler, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that leave room for a response in the model's context; a control is no reason to stop a study."""
    room = None if model.context_length is None else model.context_length - sampler.response_length
    return [
        prompt for prompt in prompts if room is None or len(model.encode(prompt.prompt or "", prompt.turns)) <= room
    ]


def control_table(detectors: Sequence[Detector], generations: pd.DataFrame) -> pd.DataFrame:
    """Every detector on every control: the share flagged, and attacks against it.

    Columns detector, control (name of the set), group (the attack whose wrapper it is, else "harmless"), value, low,
    high, count, hits (share flagged), and auroc, auroc_low, auroc_high, positives: the attack's own prompts, for other
    controls those of all attacks, against the control's.
    """
    import pandas as pd

    sets, groups = generations["set"].to_numpy(dtype=str), generations["group"].to_numpy(dtype=str)
    keys = dict.fromkeys(zip(sets, groups, strict=True))
    rows = []
    for detector in detectors:
        for control, group in (key for key in keys if key[0].startswith(PREFIX)):
            members = detector.scores[(sets == control) & (groups == group)]
            attacked = (sets == "test_attacks") & ((groups == group) | (control != WRAPPED))
            area = auroc(members, detector.scores[attacked])
            rows.append(
                {"detector": detector.name, "control": control, "group": group}
                | vars(wilson(int((members > detector.limit).sum()), len(members)))
                | {"auroc": area.value, "auroc_low": area.low, "auroc_high": area.high}
                | {"positives": int(attacked.sum())}
            )
    return pd.DataFrame(rows, columns=CONTROL_COLUMNS)


CONTROL_COLUMNS = ["detector", "control", "group", *FIELDS]
CONTROL_COLUMNS += ["auroc", "auroc_low", "auroc_high", "positives"]


def correlation_table(detectors: Sequence[Detector], generations: pd.DataFrame) -> pd.DataFrame:
    """How the score of every detector goes with the lengths of harmless test prompts, and of their answers.

    Columns detector, length ("prompt_tokens" or "answer_tokens"), value (Spearman's rho), low, high, count.
    """
    import pandas as pd

    harmless = (generations["set"] == "test_harmless").to_numpy()
    rows = [
        {"detector": detector.name, "length": length}
        | vars(spearman(detector.scores[harmless], generations.loc[harmless, length].to_numpy(dtype=float)))
        for detector in detectors
        for length in LENGTHS
    ]
    return pd.DataFrame(rows).drop(columns="hits")  # a correlation has none


def spearman(first: np.ndarray, second: np.ndarray) -> Rate:
    """Spearman's rank correlation of two arrays ``[n]`` with its 95% interval; all NaN where one is constant or n < 4.

    The interval is NaN where the ranks agree, or oppose each other, throughout: then nothing tells its width.
    Source: Bonett and Wright (2000), Psychometrika 65, for the standard error on Fisher's scale.
    """
    from scipy.stats import spearmanr

    n = len(first)
    if n < 4 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return Rate(np.nan, np.nan, np.nan, n)
    value = float(spearmanr(first, second).statistic)
    if abs(value) > 1 - 1e-12:
        return Rate(value, np.nan, np.nan, n)
    half = 1.959964 * np.sqrt((1 + value**2 / 2) / (n - 3))
    low, high = np.tanh(np.arctanh(value) + np.array([-half, half]))
    return Rate(value, float(low), float(high), n)
