"""`merge`: the parts of one run made one recording.

In: the folders of all parts. Out: the recording that one run would have made, row by row the same. Shards are copied
one at a time, so memory holds one shard and the table; a merge that was killed goes on with the rows that are missing.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from demur.errors import InputError
from demur.files.staging import found, is_own_folder
from demur.recording import folder as files
from demur.recording.keeping import Kept, keep_all
from demur.recording.parts import RUN_ROWS, run_manifest
from demur.recording.recording import Recording


def merge(parts: Sequence[str | Path], out: str | Path, *, resume: bool = True) -> Recording:
    """Make one recording of all the parts of a run.

    parts : folders that ``record(..., part=(i, n))`` completed, all n of them in any order. out : the folder of the
    whole recording. resume : go on with what `out` holds; False starts anew. The parts stay as they are.

    Raises `InputError` for a part that is missing, double, not complete, damaged or of another run, and for a folder
    that is no part; nothing is written then.
    """
    opened = _all_of_one_run([Path(part) for part in parts])
    manifest = run_manifest(opened[0].manifest)

    def merged(done: np.ndarray) -> Iterator[Kept]:
        for part in opened:
            yield from _copied(part, done)

    keep_all(Path(out), manifest, merged, lambda root: _copy_tokenizer(opened[0].path, root), resume=resume)
    return Recording(out)


def _all_of_one_run(folders: Sequence[Path]) -> list[Recording]:
    """The parts in their order, once they are known to be all the parts of one run."""
    if not folders:
        raise InputError("there are no parts to merge; give the folders that `demur record --part I/N` wrote")
    opened: dict[int, Recording] = {}
    for folder in folders:
        part = Recording(folder)
        share = part.manifest.get("part")
        if not isinstance(share, dict):
            raise InputError(f"{folder}: is no part of a run; give folders that `demur record --part I/N` wrote")
        if opened:
            _require_same_run(next(iter(opened.values())), part)
        index = int(share["index"])
        if index in opened:
            raise InputError(f"{folder}: is part {index}/{share['of']}, and so is {opened[index].path}; leave one out")
        opened[index] = part
    of = int(next(iter(opened.values())).manifest["part"]["of"])
    if missing := [f"{index}/{of}" for index in range(1, of + 1) if index not in opened]:
        raise InputError(
            f"{len(opened)} of the {of} parts were given; missing: {', '.join(missing[:8])}"
            f"{' and more' * (len(missing) > 8)}. Record those with --part, and give all parts"
        )
    return [opened[index] for index in sorted(opened)]


def _require_same_run(first: Recording, other: Recording) -> None:
    mine, theirs = first.manifest["part"], other.manifest["part"]
    if mine["plan"] == theirs["plan"]:
        return
    found = {"of": (mine["of"], theirs["of"]), "keep": (first.keep, other.keep)}
    found["batch_size"] = (mine["run"]["batch_size"], theirs["run"]["batch_size"])
    found["signal"] = (first.manifest["signal"], other.manifest["signal"])
    found["token ids"] = (mine["run"]["inputs"], theirs["run"]["inputs"])
    there, here = mine["run"]["provenance"], theirs["run"]["provenance"]
    names = [name for name in {**there, **here} if name != "model"]
    found |= {name: (there.get(name), here.get(name)) for name in names}
    differing = [f"{name}{_told(*values)}" for name, values in found.items() if values[0] != values[1]]
    raise InputError(
        f"{first.path} and {other.path} are parts of two runs, which differ in {', '.join(differing) or 'their plan'}; "
        f"give the parts of one run"
    )


def _told(mine: Any, theirs: Any) -> str:
    """Both values where they are short."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        names = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        return f" ({', '.join(names)})"
    return f" ({mine} against {theirs})" if max(len(str(mine)), len(str(theirs))) < 24 else ""


def _copied(part: Recording, done: np.ndarray) -> Iterator[Kept]:
    """The shards of a part with the rows of the whole run, but for the rows that are done."""
    for number, arrays in part.numbered_shards():
        run_rows = arrays.pop(RUN_ROWS)
        table = files.read_shard_table(part.path, number).set_index("row", drop=False).loc[arrays["rows"]]
        missing = ~np.isin(run_rows, done)
        if missing.any():
            arrays = {name: values[missing] for name, values in arrays.items()}
            rows = run_rows[missing]
            yield Kept({**arrays, "rows": rows}, table[missing].assign(row=rows).reset_index(drop=True))


def _copy_tokenizer(source: Path, root: Path) -> None:
    place = found(source, files.TOKENIZER)
    if is_own_folder(place):
        files.keep_tokenizer(root, lambda new: shutil.copytree(place, new, dirs_exist_ok=True))
