"""The prompt sets of a study: read from a folder, with controls behind them, and checked before anything is generated.

In: a folder of prompt files named as in `PROMPT_SETS`. Out: lists of prompts by set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from demur.bundled import bundled_prompts, is_bundled
from demur.errors import InputError
from demur.guards.calibration import MINIMUM_CALIBRATION
from demur.prompts import Prompt, ReadOptions, read_prompts
from demur.studies.study.controls import PREFIX, WRAPPED, bundled_controls, wrapped
from demur.studies.study.directions import CALIBRATION
from demur.studies.study.results import PROMPT_SETS

OPTIONAL_SETS = ("test_attacks",)
FEWEST_FOR_ANCHORS = 8
ENDINGS = (".jsonl", ".csv", ".tsv", ".parquet")


def read_sets(folder: Path, limit: int | None, read: ReadOptions | None = None) -> dict[str, list[Prompt]]:
    """The prompt sets of a study by name, from a folder or "demur/toy", and behind them the controls.

    Controls are the folder's own files ``control_NAME``, or else the bundled ones (none for the toy world, whose
    models know no other prompts); and, unless the folder brings them, harmless test prompts in the attacks' wrappers.
    Raises `InputError` naming every file missing.
    """
    toy = is_bundled(folder)
    if toy:
        folder = bundled_prompts(str(folder))[0].parent
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder of prompt files; it should hold {', '.join(PROMPT_SETS)} as .jsonl")
    paths = {name: _file_of(folder, name) for name in PROMPT_SETS}
    missing = [name for name, path in paths.items() if path is None and name not in OPTIONAL_SETS]
    if missing:
        raise InputError(
            f"{folder}: lacks {', '.join(missing)}; expected a .jsonl, .csv, .tsv or .parquet file of each name"
        )
    sets = {name: _read(path, read) for name, path in paths.items() if path is not None}
    sets |= _controls_of(folder, read) or ({} if toy else bundled_controls())
    if WRAPPED not in sets and (enclosed := wrapped(sets.get("test_attacks", []), sets["test_harmless"])):
        sets[WRAPPED] = enclosed
    return {name: first_of_each(prompts, limit) for name, prompts in sets.items()}


def _controls_of(folder: Path, read: ReadOptions | None) -> dict[str, list[Prompt]]:
    paths = (path for path in sorted(folder.glob(f"{PREFIX}*")) if path.suffix in ENDINGS)
    return {path.stem: _read(path, read) for path in paths}


def _read(path: Path, read: ReadOptions | None) -> list[Prompt]:
    read = read or ReadOptions()
    return read_prompts(path, columns=read.columns, labels=read.labels, encoding=read.encoding)


def _file_of(folder: Path, name: str) -> Path | None:
    paths = (folder / f"{name}{ending}" for ending in ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def require_anchor_prompts(sets: Mapping[str, Sequence[Prompt]], limit: int | None) -> None:
    """Refuse sets of fewer prompts than anchors need, before anything is generated."""
    for name in ("anchors_harmless", "anchors_harmful"):
        if len(sets[name]) < FEWEST_FOR_ANCHORS:
            cause = "give more" if limit is None or limit >= FEWEST_FOR_ANCHORS else f"--limit {limit} is too low"
            raise InputError(
                f"{name}: {len(sets[name])} prompts, and anchors need at least {FEWEST_FOR_ANCHORS} a side; {cause}"
            )


def require_calibration_prompts(sets: Mapping[str, Sequence[Prompt]], limit: int | None) -> None:
    """Refuse fewer prompts than set a guard's limit, before anything is generated."""
    count = len(sets[CALIBRATION])
    if count < MINIMUM_CALIBRATION:
        cause = "" if limit is None or limit >= MINIMUM_CALIBRATION else f"; --limit {limit} is too low"
        raise InputError(
            f"{CALIBRATION}: {count} prompts to calibrate on are too few; give {MINIMUM_CALIBRATION} or more{cause}"
        )


def example_set(name: str, sets: Mapping[str, Sequence[Prompt]], folder: Path) -> tuple[str, str]:
    """The set and the id of the prompt that `name` stands for: its id, or SET/ID where several sets hold that id."""
    tested = {one: {prompt.id for prompt in rows} for one, rows in sets.items() if not one.startswith("anchors_")}
    found = [one for one, ids in tested.items() if name in ids]
    member, _, identity = name.partition("/")
    if not found and identity in tested.get(member, ()):
        return member, identity
    if not found:
        raise InputError(f"--example {name!r} is the id of no prompt of {folder} besides the anchors'")
    if len(found) > 1:
        raise InputError(
            f"--example {name!r} is the id of prompts of {', '.join(found)}; name the set too, as in {found[0]}/{name}"
        )
    return found[0], name


def first_of_each(prompts: Sequence[Prompt], limit: int | None) -> list[Prompt]:
    """The first `limit` prompts of each group, in their order."""
    seen: dict[str, int] = {}
    kept = []
    for prompt in prompts:
        seen[prompt.group] = seen.get(prompt.group, 0) + 1
        if limit is None or seen[prompt.group] <= limit:
            kept.append(prompt)
    return kept
