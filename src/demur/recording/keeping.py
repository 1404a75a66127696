"""Keeping what was recorded: into a folder shard by shard, from whoever makes the shards.

In: a folder, the manifest of a recording, and a source of rows that are not there yet. Out: the complete folder. A
kill at any moment leaves whole shards, and the same call goes on with the rows that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from demur.recording import folder as files
from demur.recording.begin import begin, done_rows, replace, require_free
from demur.recording.compaction import Compaction


class Kept(NamedTuple):
    """What one shard keeps: arrays, and a row a prompt with its `row` of the recording."""

    arrays: files.Arrays
    table: pd.DataFrame


Source = Callable[[np.ndarray], Iterator[Kept]]
"""Gives the shards of a recording, but for the rows that are done, int64."""


def keep_all(
    folder: Path,
    manifest: Mapping[str, Any],
    source: Source,
    save_tokenizer: Callable[[Path], None],
    *,
    resume: bool,
) -> None:
    """Keep all that `source` gives in `folder`, and complete the recording there.

    save_tokenizer : puts the tokenizer into the folder it is given. resume : see `record`.
    """
    require_free(folder)
    with files.locked(folder):
        root = begin(folder, manifest, resume=resume)
        done, is_proven = done_rows(root, manifest)
        if not is_proven:
            save_tokenizer(root)
        compaction = Compaction(root, files.read_manifest(root)["key"])
        for arrays, table in source(done):  # which gives nothing where all is there
            compaction.write(arrays, table)
        if not is_proven:
            compaction.finish()
            _finish(root)
        if root != folder:
            replace(folder, root)


def _finish(folder: Path) -> None:
    manifest = files.read_manifest(folder)
    tables, marks = [], {}
    for number in files.shard_numbers(folder):
        shard = files.read_shard(folder, number)
        tables.append(shard.table)
        marks[number] = files.mark_of(shard)
    table = pd.concat(tables)
    tables.clear()
    files.write_table(folder, table.sort_values("row", ignore_index=True), marks, manifest["key"])
    files.write_manifest(folder, {**manifest, "tokenizer": files.tokenizer_hashes(folder), "complete": True})
