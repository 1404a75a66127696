"""Whether the recording in a folder is the one that is wanted, by their manifests.

In: two manifests. Out: the fields in which they say that other things were recorded; the versions of the libraries are
told apart from those, for another version makes no finished recording worthless.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demur.errors import InputError
from demur.provenance import Provenance


def differing(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """The fields in which two manifests say that other things were recorded, or are kept otherwise."""
    names = _differing(found["provenance"], wanted["provenance"])
    names += [name for name in ("keep", "signal") if not _alike(found.get(name), wanted[name])]
    names += ["looks"] if "keep" not in names and found.get("looks") != wanted.get("looks") else []
    names += ["part"] if _share(found) != _share(wanted) else []
    if not names and is_older(found, wanted) and not found["complete"]:
        names = ["versions"]
    return names


def is_older(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether other versions of the libraries recorded it."""
    return bool(found["provenance"].get("versions") != wanted["provenance"].get("versions"))


def has_other_inputs(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Whether the prompts were other token ids then."""
    return bool(found.get("inputs", wanted["inputs"]) != wanted["inputs"])


def require_same_inputs(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with other token ids: two days of a chat template that writes the date are two recordings."""
    if has_other_inputs(found, wanted):
        raise InputError(
            f"{folder}: the same prompts have become other token ids since it was begun; a chat template that writes "
            f"the date does so. Fix it by template_arguments where the template reads one (as --template-arg "
            f"date_string=...), or give another folder, or resume=False (--no-resume) to replace it"
        )


def warn_of_differences(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Say that a finished recording was made by other versions, or of other token ids, where it was."""
    if has_other_inputs(found, wanted):
        warnings.warn(
            f"{folder}: the same prompts have become other token ids since it was recorded; a chat template that "
            f"writes the date does so. It is complete and is kept as it is",
            stacklevel=4,
        )
    if is_older(found, wanted):
        there, here = _told(found["provenance"]), _told(wanted["provenance"])
        warnings.warn(f"{folder}: was recorded by {there}, and this is {here}; it is kept", stacklevel=4)


def another(folder: Path, found: Mapping[str, Any], names: list[str]) -> InputError:
    """The error of a folder that holds another recording."""
    there = found["provenance"]
    return InputError(
        f"{folder}: holds another recording, of {there.get('model')} with {there.get('count')} prompts; "
        f"it differs in {', '.join(names)}. Give another folder, or resume=False (--no-resume) to replace it"
    )


def _share(manifest: Mapping[str, Any]) -> Any:
    """Which part of which run a manifest is of; None for a whole run."""
    part = manifest.get("part")
    return (part.get("index"), part.get("of"), part.get("plan")) if isinstance(part, dict) else None


def _differing(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """The fields in which two provenances say that other things were recorded."""
    uncompared = {"model", "versions", "former"}
    if Provenance.from_dict(there).same_model(Provenance.from_dict(here)):
        uncompared.add("fingerprint")
    names = {**here, **there}  # one of them may have been given responses, and the other not
    return [name for name in names if name not in uncompared and there.get(name) != here.get(name)]


def _alike(found: Any, wanted: Any) -> bool:
    """Whether two entries of a manifest say the same, models by either of their names."""
    if not isinstance(found, dict) or not isinstance(wanted, dict):
        return bool(found == wanted)
    return not _differing(found, wanted)


def _told(made: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {one}" for name, one in sorted(dict(made.get("versions") or {}).items())) or "no version"
