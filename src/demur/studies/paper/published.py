"""The numbers that the paper prints, to stand beside ours where the model is the paper's.

In: the name of a model and of a group. Out: the published value of a measure as a share, or nothing. Source: arXiv
2602.02600, Tables 1, 2, 3, 4, 13 and 14.
"""

from __future__ import annotations

from collections.abc import Mapping

CHECKPOINTS = {
    "Llama-3.1-8B-Instruct": "LLaMA-3",
    "Qwen2.5-7B-Instruct": "Qwen-2.5",
    "gemma-7b-it": "Gemma",
    "LLaDA-8B-Instruct": "LLaDA",
    "LLaDA-1.5": "LLaDA-1.5",
    "Dream-v0-Instruct-7B": "Dream",
}
GROUPS = {
    "harmful": "raw",
    "all attacks": "all attacks",
    "PAIR": "PAIR",
    "refusal-suppression": "RefSup",
    "random_search": "Random",
    "WildJailbreak": "Wild",
}
"""Our groups and the paper's columns; all modes of FlipAttack are its Flip."""

RECOVERY = {"LLaDA": (0.81, 0.63), "Dream": (0.96, 0.73), "LLaDA-1.5": (0.92, 0.65)}
"""Table 1: HRR, FRR."""

SWAP = {
    "LLaDA": {"Wild": (14, 18), "Flip": (33, 36), "PAIR": (7, 5), "RefSup": (55, 26), "Random": (21, 16)},
    "LLaDA-1.5": {"Wild": (15, 21), "Flip": (38, 60), "PAIR": (0, 2), "RefSup": (52, 20), "Random": (19, 8)},
}
"""Table 2: points of RR gained and of ASR lost by diffusion over AR order."""

_COLUMNS = ("raw", "all attacks", "Flip", "PAIR", "RefSup", "Random", "Wild")
_RATES = {
    "LLaMA-3": ((83, 13), (23.4, 59.2), (1, 98), (70, 24), (41, 48), (3, 29), (2, 97)),
    "Qwen-2.5": ((53, 26), (11.4, 62.2), (2, 91), (33, 44), (18, 46), (4, 31), (0, 99)),
    "Gemma": ((88, 8), (46.2, 48.2), (10, 86), (76, 20), (74, 17), (65, 26), (6, 92)),
    "LLaDA": ((83, 6), (67.4, 18.4), (69, 24), (92, 5), (79, 8), (36, 26), (61, 29)),
    "LLaDA-1.5": ((84, 9), (59.6, 21.0), (59, 17), (92, 2), (71, 15), (27, 34), (49, 37)),
    "Dream": ((89, 1), (44.4, 9.4), (42, 18), (86, 0), (46, 5), (34, 4), (14, 20)),
}
RATES = {model: dict(zip(_COLUMNS, rows, strict=True)) for model, rows in _RATES.items()}
"""Table 3: RR, ASR in percent."""

ABLATION = {
    "text-level signal": 0.573,
    "first step alone": 0.584,
    "SRI, first layer": 0.566,
    "SRI, middle layer": 0.864,
    "SRI, last layer": 0.920,
}
"""Table 4: mean AUROC over the paper's six models."""

_DEFENSES = ("none", "perplexity", "self-examine", "guard model", "SRIGuard")
_COSTS = {
    "LLaDA": (
        (0, 7, 67.4, 18.4),
        (6.26, 9, 68.0, 18.2),
        (7.74, 7, 67.4, 18.4),
        (12.42, 7, 77.2, 14.4),
        (0.04, 9, 73.4, 16.8),
    ),
    "LLaDA-1.5": (
        (0, 6, 59.6, 21.0),
        (6.18, 8, 60.2, 20.8),
        (8.09, 6, 80.2, 10.0),
        (12.27, 7, 71.6, 16.6),
        (0.04, 8, 70.2, 17.0),
    ),
    "Dream": (
        (0, 4, 44.4, 9.4),
        (5.72, 6, 44.8, 9.4),
        (5.33, 4, 47.4, 8.8),
        (11.34, 4, 51.4, 8.6),
        (0.03, 6, 56.4, 7.2),
    ),
    "Qwen-2.5": (
        (0, 0, 11.4, 62.2),
        (2.40, 2, 12.0, 59.2),
        (3.71, 0, 11.4, 62.2),
        (4.76, 0, 43.2, 46.6),
        (0.01, 3, 47.8, 40.6),
    ),
    "LLaMA-3": (
        (0, 0, 23.4, 59.2),
        (2.36, 2, 24.0, 58.8),
        (4.80, 0, 30.8, 44.4),
        (4.67, 0, 46.6, 48.0),
        (0.01, 4, 55.0, 43.6),
    ),
    "Gemma": (
        (0, 0, 46.2, 48.2),
        (2.65, 2, 46.8, 47.8),
        (5.47, 0, 53.4, 37.0),
        (5.26, 2, 60.4, 37.6),
        (0.02, 0, 54.2, 42.2),
    ),
}
DEFENSES = {model: dict(zip(_DEFENSES, rows, strict=True)) for model, rows in _COSTS.items()}
"""Table 13: overhead, false positives, jailbreak RR and jailbreak ASR in percent."""

INFILLING = {"LLaDA": {"pad": (0.53, 0.29), "dija": (0.76, 0.29)}}
"""Table 14: ASR without a guard and with the SRI Guard."""


def paper_model(name: str) -> str | None:
    """The paper's name of a model given by Hub id or folder, None for others."""
    return CHECKPOINTS.get(name.rstrip("/").rsplit("/", 1)[-1])


def paper_group(group: str) -> str | None:
    """The paper's column of a group, None where it has none."""
    if group.startswith("flip-"):
        return "Flip"
    return GROUPS.get(group)


def of_group(table: Mapping[str, Mapping[str, tuple[float, ...]]], model: str, group: str) -> tuple[float, ...] | None:
    """The published row of a model and group, None where the paper has none."""
    return table.get(paper_model(model) or "", {}).get(paper_group(group) or "")
