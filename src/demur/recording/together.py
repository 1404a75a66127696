"""One recording made by all processes that share a split network: every one computes, the first alone writes.

In: what `keep_all` is given, the same in every process. Out: the complete folder, when the call ends in any of them.
The first process says before every batch whether it goes on, so that a fault of the folder or the disk ends all
processes with the same error and none of them waits in a pass for one that has stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from demur.errors import InputError
from demur.models.parallel import from_first, is_first, of_all
from demur.recording.keeping import Kept, Source, keep_all


class Word(NamedTuple):
    """What the first process says: begin (with the rows that are done), batch, end or fault (with its message)."""

    kind: str
    value: Any = None


def keep_together(
    folder: Path,
    manifest: Mapping[str, Any],
    source: Source,
    save_tokenizer: Callable[[Path], None],
    *,
    resume: bool,
) -> None:
    """As `keep_all`, by all processes of a split network. A fault of one's own pass ends that process."""
    same = {name: manifest[name] for name in ("key", "inputs", "keep")}
    if is_first():
        _lead(lambda told: keep_all(folder, manifest, told, save_tokenizer, resume=resume), source, same)
    else:
        _follow(source, same)


def _lead(keep: Callable[[Source], None], source: Source, same: Mapping[str, Any]) -> None:
    of_all_alike = False  # whether what fails now fails in every process by itself

    def told(done: np.ndarray) -> Iterator[Kept]:
        nonlocal of_all_alike
        from_first(Word("begin", done))
        of_all_alike = True
        _require_same(same)
        shards = source(done)
        while True:
            from_first(Word("batch"))
            of_all_alike = True
            kept = next(shards, None)
            of_all_alike = False
            if kept is None:
                return
            yield kept

    try:
        keep(told)
    except Exception as error:
        if not of_all_alike:
            with suppress(RuntimeError):  # the others may be gone, and then this is the error to show
                from_first(Word("fault", str(error)))
        raise
    from_first(Word("end"))


def _follow(source: Source, same: Mapping[str, Any]) -> None:
    done = _heard("begin").value
    _require_same(same)
    shards = source(done)
    while _heard("batch", "end").kind == "batch":
        next(shards, None)


def _require_same(mine: Mapping[str, Any]) -> None:
    first, *others = of_all(mine)
    if names := [name for name in first if any(one[name] != first[name] for one in others)]:
        raise InputError(
            f"the processes of torchrun were given different recordings, which differ in {', '.join(names)}; make the "
            f"same call with the same prompts in all of them"
        )


def _heard(*expected: str) -> Word:
    word: Word = from_first(None)
    if word.kind == "fault":
        raise InputError(str(word.value))
    if word.kind not in expected:
        raise InputError(f"the processes of torchrun do not make the same calls: one waits for {expected[0]}")
    return word
