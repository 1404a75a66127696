"""Judges by the names that the command line gives them.

In: "complies", "complies:N", "chat:MODEL" or an address. Out: a `Judge`. What a judge is, and how an answer is
read, is the business of `demur.judges`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from demur.errors import InputError
from demur.judges import JUDGES, ChatJudge, CompliesJudge, HTTPAsker, Judge
from demur.models import Model
from demur.plugins import load_installed
from demur.recording import ModelAsker
from demur.recording.engine import Engine


def judge_of(
    name: str,
    load: Callable[[str], Model],
    *,
    address_model: str | None = None,
    api_key_env: str | None = None,
    cache: Path | None = None,
    engine: Engine | None = None,
) -> Judge:
    """The judge that `name` stands for.

    name : "complies", "complies:N" for the first N words only, "chat:MODEL" for a model that `load` loads, the
        address of an OpenAI-compatible server, where `address_model` is asked with the key in `api_key_env`, or the
        name of a plugin's judge in `JUDGES`, with ":" and what it is to be told behind it.
    cache : file that keeps a chat judge's verdicts. engine : what generates the answers of a model that `load` loads.
    """
    kind, _, rest = name.partition(":")
    if kind == "complies" and (not rest or rest.isdigit()):
        return CompliesJudge(int(rest) if rest else None)
    if kind == "chat" and rest:
        return ChatJudge(ModelAsker(load(rest), engine=engine), cache=cache)
    if kind in ("http", "https"):
        if address_model is None:
            raise InputError(f"judge {name}: which model to ask there is not known; give it by --judge-model")
        return ChatJudge(HTTPAsker(name, address_model, api_key_env), cache=cache)
    if kind not in JUDGES:
        load_installed()
    if kind not in JUDGES:
        known = ", ".join(["complies", "complies:N", "chat:MODEL", *JUDGES])
        raise InputError(f"judge {name!r} is unknown; give {known} or http://ADDRESS")
    return JUDGES[kind](rest)
