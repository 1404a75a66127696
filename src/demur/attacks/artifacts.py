"""Readers of published attack prompts and behaviours.

In: a JailbreakBench artifact (``.json``), a HarmBench behaviours file (``.csv``), or a data set of the Hub by name.
Out: `Prompt`s, with the ids, goals and categories of the source. Responses that a source holds are not read. Every
fault is an `InputError` that names the file, the row and the mend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from demur.attacks.hub import hub_prompts
from demur.errors import InputError
from demur.files.writing import parse_json
from demur.prompts import Prompt, checked_rows, file_rows

Rows = Iterator[tuple[str, Any]]


def read_artifact(path: str | Path, *, limit: int | None = None) -> list[Prompt]:
    """Read the prompts of a published artifact.

    path : JailbreakBench artifact ``.json`` (arXiv 2404.01318), HarmBench behaviours ``.csv`` (arXiv 2402.04249), or
        ``hub:allenai/wildjailbreak[:eval|train]``, ``hub:JailbreakBench/JBB-Behaviors[:harmful|benign]``.
    limit : read the first `limit` prompts only.
    """
    name = str(path)
    if name.startswith("hub:"):
        rows = hub_prompts(name)
    elif name.lower().endswith(".json"):
        rows = _jailbreakbench_rows(Path(path))
    elif name.lower().endswith(".csv"):
        rows = _harmbench_rows(Path(path))
    else:
        raise InputError(
            f"{name}: unknown kind of artifact; give a JailbreakBench .json, a HarmBench .csv or a hub:… name. "
            f"Prompt files are read with read_prompts"
        )
    prompts = list(checked_rows(name, rows, limit))
    if not prompts:
        raise InputError(f"{name}: holds no prompts; check that the file is whole")
    return prompts


def _jailbreakbench_rows(path: Path) -> Rows:
    """A jailbreak of an artifact each; those without a prompt, where the attack found none, are left out."""
    artifact = _json(path)
    parts = artifact if isinstance(artifact, dict) else {}
    method = parts.get("parameters", {}).get("method") if isinstance(parts.get("parameters"), dict) else None
    jailbreaks = parts.get("jailbreaks")
    if not isinstance(method, str) or not isinstance(jailbreaks, list):
        raise InputError(
            f"{path}: is no JailbreakBench artifact; expected an object with 'parameters' (and in it 'method') and a "
            f"list 'jailbreaks', as under attack-artifacts/ of JailbreakBench/artifacts"
        )
    for number, row in enumerate(jailbreaks, start=1):
        place = f"jailbreak {number}"
        _require(path, place, row, ("index", "goal", "prompt"))
        if row["prompt"] is not None:
            yield (
                place,
                {
                    "id": f"jbbart-{method}-{_number(path, place, row['index']):03d}",
                    "prompt": row["prompt"],
                    "label": "harmful",
                    "attack": method,
                    "goal": row["goal"],
                    "category": row.get("category"),
                },
            )


def _harmbench_rows(path: Path) -> Rows:
    """A behaviour each; where it has a context, that stands before it, set off by a rule as HarmBench does."""
    for place, row in file_rows(path):
        _require(path, place, row, ("Behavior", "BehaviorID"))
        if "ImageFileName" in row:
            raise InputError(f"{path}: holds HarmBench's behaviours on images; give a text file, …_text_….csv")
        behaviour, context = row["Behavior"], row.get("ContextString")
        has_context = isinstance(context, str)
        yield (
            place,
            {
                "id": row["BehaviorID"],
                "prompt": f"{context}\n\n---\n\n{behaviour}" if has_context else behaviour,
                "label": "harmful",
                "goal": behaviour if has_context else None,
                "category": row.get("SemanticCategory"),
            },
        )


def _json(path: Path) -> Any:
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path}: artifact {kind}; give a JailbreakBench .json file")
    try:
        return parse_json(path.read_text(encoding="utf-8-sig"), path)
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text ({error.reason} at byte {error.start}); fetch it again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give another place of the file") from error
    except InputError as error:
        raise InputError(f"{error}; fetch it again") from error


def _require(path: Path, place: str, row: Any, names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in row] if isinstance(row, Mapping) else list(names)
    if missing:
        raise InputError(f"{path}, {place}: has no field {missing[0]!r}; expected {', '.join(names)}")


def _number(path: Path, place: str, value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path}, {place}: index {value!r:.40} is no whole number; fetch the file again") from error
