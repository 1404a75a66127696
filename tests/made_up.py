"""Runs that no model made: recordings and studies of random generations, and the pages that play them.

What `demur record` and `demur study` would take minutes for is written here as they would leave it, of any size and
with any text in it.
"""

from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from demur.provenance import Provenance
from demur.recording import Recording
from demur.recording import folder as files
from demur.studies import Study

END, MASK = 0, 1
HOSTILE = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)><!--",
    "a\x00b\x1b[31m",
    "\u202eevil\u2066\u200f",
    "\u2028\u2029{{ 7 * 7 }}",
    "שלום عليكم",
    "y" * 100_000,
]


def write_recording(
    folder: Path, count: int, *, steps: int, response: int, words: list[str], revises: bool = True, seed: int = 0
) -> Recording:
    """A recording as `record` leaves it, of made-up generations: half of what is not committed changes at each step."""
    random = np.random.default_rng(seed)
    made = Provenance("made-up", "0" * 64, {"name": "MaskedDiffusion", "steps": steps}, (1,), count=count)
    manifest = {"provenance": made.to_dict(), "keep": "phi", "revises": revises, "eos_token_ids": [END]}
    tables = []
    for number, rows in enumerate(np.array_split(np.arange(count)[::-1].copy(), max(1, count // 500))):
        order = random.permuted(np.tile(np.arange(response), (len(rows), 1)), axis=1)
        committed_at = (order * steps // response + 1).astype(np.int16)
        committed_at[:, -1] = 0  # never: its place in the end holds the mask
        predicted = random.integers(END, len(words), (len(rows), steps, response), dtype=np.int32)
        kept = random.random(predicted.shape) < 0.5
        for step in range(1, steps):
            still = kept[:, step] | ((committed_at <= step) & (committed_at > 0))
            predicted[:, step] = np.where(still, predicted[:, step - 1], predicted[:, step])
        predicted[:, :3, -1] = MASK
        tokens = np.where(committed_at > 0, predicted[:, -1], MASK)
        arrays = {"rows": rows, "tokens": tokens, "committed_at": committed_at, "predicted": predicted}
        phi = np.zeros((len(rows), steps, 1, 2), dtype=np.float32)
        columns = {
            "id": [f"{folder.name}-{row}" for row in rows],
            "group": "pair",
            "label": "harmful",
            "attack": "pair",
        }
        texts = [" ".join(words[token] for token in row) for row in tokens]
        table = pd.DataFrame({**columns, "goal": None, "category": None, "prompt": "SECRET PROMPT", "text": texts})
        tables.append(table.assign(refused=rows % 3 == 0, tokens=response, prompt_tokens=3, row=rows, shard=number))
        files.write_shard(folder, number, {**arrays, "phi": phi}, tables[-1])
    files.write_table(folder, pd.concat(tables).sort_values("row", ignore_index=True))
    files.write_manifest(folder, {**manifest, "complete": True})
    inner = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token=words[0]))
    files.save_tokenizer(folder, PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=words[END]))
    return Recording(folder)


def write_study(folder: Path, recordings: dict[str, Recording], limit: float = 1.5) -> Study:
    """A study of made-up signals over these recordings."""
    random = np.random.default_rng(0)
    rows = pd.concat([recording.table.assign(set=name) for name, recording in recordings.items()], ignore_index=True)
    rows["group"] = np.where(rows["set"] == "test_harmless", "harmless", rows["group"])
    rows["attack"] = rows["attack"].where(rows["set"] == "test_attacks", None)
    rows = rows.assign(guard_error=np.arange(len(rows)) % 4, flagged=np.arange(len(rows)) % 4 > limit)
    steps = next(iter(recordings.values())).steps
    nothing = pd.DataFrame({"value": pd.Series(dtype=float)})
    study = Study(
        settings={"model": "example/made-up", "guard": {"threshold": limit}},
        generations=rows,
        scores=nothing,
        signals=random.random((len(rows), steps)).astype(np.float32),
        text_signals=(random.random((len(rows), 1)) < np.linspace(1, 0, steps)).astype(np.float32),
        references=np.stack([np.linspace(0.9, 0.95, steps), np.linspace(0.5, 0.05, steps)]).astype(np.float32),
        rates=nothing,
        detection=nothing,
        false_positives=nothing,
        controls=nothing,
        correlations=nothing,
        streaming=nothing,
        projection=nothing,
        path=folder,
    )
    study.save(folder)
    return study


def make_study(folder: Path, words: list[str] | None = None, count: int = 9, **sizes: Any) -> Study:
    words = words or ["<end>", "<mask>", *(f"w{n:03d}" for n in range(300))]
    sizes = {"steps": 8, "response": 21, **sizes}
    names = ("test_harmless", "test_attacks")
    every = {n: write_recording(folder / "recordings" / n, count, words=words, seed=len(n), **sizes) for n in names}
    return write_study(folder, every)


def make_hostile_study(folder: Path) -> Study:
    """A study in which every name, prompt, answer and token is an attack on the page that shows it."""
    words = ["<end>", "<mask>", *(text[:2000] for text in HOSTILE)]
    recordings = {}
    for name in ("test_harmless", "test_attacks"):
        path = folder / "recordings" / name
        write_recording(path, len(HOSTILE), steps=8, response=21, words=words)
        table = pd.read_parquet(path / files.TABLE)
        table = table.assign(id=HOSTILE, group=HOSTILE, attack=HOSTILE, prompt=HOSTILE, text=HOSTILE)
        files.write_table(path, table)
        recordings[name] = Recording(path)
    study = write_study(folder, recordings)
    named = replace(study, settings={**study.settings, "model": HOSTILE[1]})
    named.save(folder)
    return named


def rows_of(study: Study) -> Iterator[tuple[int, Recording, int, int]]:
    """Place in the viewer, recording, row in it, and row of the study: attacks come first."""
    place = 0
    for name in ("test_attacks", "test_harmless"):
        recording = Recording(study.path / "recordings" / name)
        for row, of_study in enumerate(np.flatnonzero(study.generations["set"] == name)):
            yield place, recording, row, int(of_study)
            place += 1


class Page(HTMLParser):
    """The elements of a page, its scripts by id (the one that runs under ""), and its source."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.style = ""
        self.inside: str | None = None
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = "style" if tag == "style" else (dict(attrs).get("id") or "") if tag == "script" else None

    def handle_endtag(self, tag: str) -> None:
        self.inside = None

    def handle_data(self, data: str) -> None:
        if self.inside == "style":
            self.style += data
        elif self.inside is not None:
            self.scripts[self.inside] = self.scripts.get(self.inside, "") + data
