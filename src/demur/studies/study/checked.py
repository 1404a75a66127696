"""The quick check that stands before a study: nothing is recorded with a model that demur measures wrongly.

In: a model and the study's folder. Out: what the check found, as plain values for `study.json`. It is kept in a file of
its own too, so that a study that goes on does not check the same model again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demur.checks import Check, check
from demur.errors import InputError
from demur.files.writing import parse_json, read_whole, write_whole
from demur.models import Model

FILE = "check.json"
LEFT_OUT: dict[str, Any] = {"ok": None, "sentence": "left out with --no-check", "rows": []}
"""What a study keeps that was told not to check."""


def checked(model: Model, out: Path, *, resume: bool, say: Callable[[str], None]) -> dict[str, Any]:
    """What the quick check says of `model`: the result that `out` holds of it, or a new one.

    Raises `InputError` naming the rows that failed; the whole result is in ``out/check.json`` then.
    """
    kept = _kept(out / FILE) if resume else {}
    if kept.get("ok") is True and kept.get("fingerprint") == model.fingerprint:
        return kept
    found = check(model, quick=True)
    values = found.to_dict()
    write_whole(out / FILE, json.dumps(values, indent=2, ensure_ascii=False))
    if not found.ok:
        raise InputError(_told(found, out))
    say(f"quick check: {sum(row.outcome == 'ok' for row in found.rows)} ok, in {found.seconds:.1f} s")
    return values


def _told(found: Check, out: Path) -> str:
    first = found.failed[0]
    names = ", ".join(row.name for row in found.failed)
    said = "; ".join(filter(None, [first.value, first.note]))
    return (
        f"{found.model}: the quick check failed in {names} ({first.name}: {said}), so numbers would be wrong; "
        f"{out / FILE} and `demur check` say more, and --no-check (check=False) goes on all the same"
    )


def _kept(path: Path) -> dict[str, Any]:
    """The result that an earlier run kept; empty where there is none that can be read."""
    if not path.is_file():
        return {}
    try:
        values = parse_json(read_whole(path), path)
    except InputError:
        return {}
    return values if isinstance(values, dict) else {}
