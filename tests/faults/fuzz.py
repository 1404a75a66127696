"""Damage to every kind of file that demur reads, drawn from a seed.

In: a kind of file, and a seed. Out: what became of reading it: the same result, one clean `InputError`, or a finding
(another result, another error, no end). `test_fuzz.py` runs some hundreds, `benchmarks/faults.py` thousands.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demur.errors import DemurError

LIMIT = 10
"""Most seconds that one reading may take."""

STRANGE: list[Any] = [
    None,
    True,
    False,
    -1,
    0,
    10**6,
    10**30,
    -(10**30),
    1e308,
    0.5,
    "",
    "x",
    "\x1b[31m",
    "\ud800",
    "../x",
]
STRANGE += [[], {}, [None], {"a": {"b": [1]}}, float("nan"), float("inf"), "\0", "1", " ", [[[]]], "é" * 3]


@dataclass(frozen=True)
class Kind:
    """A kind of file: `read` of a folder gives the result as text; `files` are the patterns of what may be damaged.

    valid : whether other content may be as valid as the first, as a list of prompts is; then a result that differs
        counts as another valid input.
    head : only so many bytes at the beginning of a file are damaged, where its header stands; None for all of them.
    """

    name: str
    folder: Path
    read: Callable[[Path], str]
    files: tuple[str, ...]
    valid: bool = False
    head: int | None = None


class TooLong(BaseException):
    """A reading that did not end."""


def run(kind: Kind, seed: int, scratch: Path) -> tuple[str, str]:
    """Damage a copy once and read it: the outcome ("same", "refused", "valid", or a finding) and what was done."""
    draw = random.Random(f"{kind.name}:{seed}")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(kind.folder, scratch)
    targets = sorted({path for pattern in kind.files for path in scratch.glob(pattern) if path.is_file()})
    target = draw.choice(targets)
    content = target.read_bytes()
    target.write_bytes(content[: kind.head])
    done = damage(target, targets, draw)
    target.write_bytes(target.read_bytes() + content[len(content[: kind.head]) :])
    return read(kind, scratch), f"{kind.name} seed {seed}: {target.relative_to(scratch)}: {done}"


def read(kind: Kind, scratch: Path) -> str:
    """The outcome of reading a damaged folder."""
    try:
        with _at_most(LIMIT), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = kind.read(scratch)
    except DemurError as error:
        message = " ".join(str(error).split())
        return "refused" if message.isprintable() else "finding: control characters in the error"
    except TooLong:
        return f"finding: no end within {LIMIT} s"
    except Exception as error:  # the finding itself
        return f"finding: {type(error).__name__}: {str(error)[:100]!r}"
    if found == kind.read(kind.folder):
        return "same"
    return "valid" if kind.valid else "finding: another result, without a word"


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def give_up(*_: Any) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def damage(target: Path, others: list[Path], draw: random.Random) -> str:
    """Change a file in one way, and say in which."""
    ways: list[Callable[[Path, list[Path], random.Random], str]] = [_flip, _cut, _insert, _swap, _lines]
    if target.suffix in (".json", ".jsonl"):
        ways += [_json] * 6
    if target.suffix == ".parquet":
        ways += [_table] * 4
    return draw.choice(ways)(target, others, draw)


def _flip(target: Path, _: list[Path], draw: random.Random) -> str:
    content = bytearray(target.read_bytes() or b"x")
    for _place in range(count := draw.choice((1, 1, 4, 64))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    target.write_bytes(content)
    return f"{count} bits turned"


def _cut(target: Path, _: list[Path], draw: random.Random) -> str:
    content = target.read_bytes()
    target.write_bytes(content[: (place := draw.randrange(len(content) + 1))])
    return f"cut after {place} of {len(content)}"


def _insert(target: Path, _: list[Path], draw: random.Random) -> str:
    content, place = target.read_bytes(), draw.randrange(target.stat().st_size + 1)
    piece = draw.choice((b"\0", b"[" * 5000, b"9" * 5000, b"\xff\xfe", b"\x1b]0;x\x07", b"\n\n", b'{"a":' * 3000))
    target.write_bytes(content[:place] + piece + content[place:])
    return f"{piece[:4]!r}… put in at {place}"


def _swap(target: Path, others: list[Path], draw: random.Random) -> str:
    other = draw.choice(others)
    content = other.read_bytes()
    target.write_bytes(content)
    return f"replaced by {other.name}"


def _lines(target: Path, _: list[Path], draw: random.Random) -> str:
    lines = target.read_bytes().splitlines(keepends=True)
    change = draw.choice(("shuffled", "doubled", "dropped"))
    if change == "shuffled":
        draw.shuffle(lines)
    elif lines:
        place = draw.randrange(len(lines))
        lines[place : place + 1] = [lines[place]] * 2 if change == "doubled" else []
    target.write_bytes(b"".join(lines))
    return f"lines {change}"


def _json(target: Path, others: list[Path], draw: random.Random) -> str:
    text = target.read_text(encoding="utf-8")
    rows = text.splitlines() if target.suffix == ".jsonl" else [text]
    row = draw.randrange(len(rows))
    value = json.loads(rows[row])
    places = list(_places(value))
    if not places:
        return _flip(target, others, draw)
    holder, key = draw.choice(places)
    if draw.random() < 0.2:
        del holder[key]
        done = f"{key!r} taken out"
    else:
        holder[key] = draw.choice(STRANGE)
        done = f"{key!r} set to {holder[key]!r}"
    rows[row] = json.dumps(value)
    target.write_text("\n".join(rows), encoding="utf-8")
    return done


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in nested JSON, as what holds it and its key."""
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield value, key
        yield from _places(value[key])


def _table(target: Path, others: list[Path], draw: random.Random) -> str:
    import pandas as pd

    table = pd.read_parquet(target)
    change = draw.choice(("reversed", "a column dropped", "a row dropped", "a cell changed", "a row doubled"))
    if change == "reversed":
        table = table.iloc[::-1]
    elif change == "a column dropped" and len(table.columns):
        table = table.drop(columns=draw.choice(list(table.columns)))
    elif change == "a row dropped":
        table = table.iloc[1:]
    elif change == "a row doubled":
        table = pd.concat([table, table.iloc[:1]])
    elif len(table) and len(table.columns):
        column = draw.choice(list(table.columns))
        table = table.astype({column: object})
        table.iloc[0, table.columns.get_loc(column)] = draw.choice([None, "x", "\x1b[31m", "../x"])
        table[column] = table[column].astype(str)
    table.to_parquet(target, index=False)
    return change


def tally(kinds: list[Kind], count: int, scratch: Path, start: int = 0) -> tuple[dict[str, Counter[str]], list[str]]:
    """`count` cases over all kinds in turn: outcomes by kind, and what was done where there was a finding."""
    outcomes: dict[str, Counter[str]] = {kind.name: Counter() for kind in kinds}
    findings = []
    for seed in range(start, start + count):
        kind = kinds[seed % len(kinds)]
        outcome, done = run(kind, seed, scratch)
        outcomes[kind.name][outcome.partition(":")[0]] += 1
        if outcome.startswith("finding"):
            findings.append(f"{done}: {outcome}")
    return outcomes, findings


def digest(*parts: Any) -> str:
    """Text that is equal for equal content."""
    content = hashlib.sha256()
    for part in parts:
        content.update(part.tobytes() if hasattr(part, "tobytes") else str(part).encode("utf-8", "surrogatepass"))
    return content.hexdigest()
