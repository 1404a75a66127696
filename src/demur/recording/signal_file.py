"""The signal of a recording as a table on disk.

In: a recording and anchors. Out: a Parquet file, a row a generation with its signal as a list, which carries
what it was made from in its schema; and the same read back as a `Signal`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from demur.errors import InputError
from demur.files.seals import allow_unverified as allowing
from demur.files.tables import read_table, write_table
from demur.files.writing import parse_json
from demur.provenance import Provenance
from demur.recording.recording import Recording
from demur.signal import Anchors, Signal

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["id", "group", "label", "attack", "refused"]
HEADER = "demur"


def write_signal(recording: Recording, anchors: Anchors, path: str | Path) -> Signal:
    """Compute the signal of a recording (or take the stored one) and write it to a Parquet file."""
    signal = recording.sigma if recording.keep == "signal" else anchors.signal(recording)
    table = recording.table[COLUMNS].assign(signal=list(np.asarray(signal)))
    provenance = signal.provenance or recording.provenance
    write_table(Path(path), table, {HEADER: json.dumps(provenance.to_dict(), sort_keys=True)})
    return signal


def read_signal(path: str | Path, *, allow_unverified: bool = False) -> tuple[pd.DataFrame, Signal]:
    """The table of a signal file without the signal, and the signal float32 ``[generations, steps]``.

    allow_unverified : read files of demur 0.1 too, which carry no hash.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(
            f"{path}: no such signal file; `demur signal RECORDING --anchors FILE --out {path}` writes one"
        )
    with allowing(allow_unverified):
        table, marks, _ = read_table(path)
    try:
        made = Provenance.from_dict(parse_json(marks[HEADER], path))
        values = np.stack(list(table.pop("signal"))).astype(np.float32)
        _require_sound(table, values, made)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: is no signal file of demur ({error}); give one that `demur signal` wrote") from error
    return table, Signal(values, made)


def _require_sound(table: pd.DataFrame, values: np.ndarray, made: Provenance) -> None:
    """Raise `ValueError` for what no signal file holds; verified files always hold sound values."""
    steps = int(made.sampler["steps"])
    if values.ndim != 2 or values.shape[1] != steps:
        raise ValueError(f"signals of shape {values.shape} for {steps} steps")
    if len(made.layers) != 1 or (made.count and made.count != len(values)):
        raise ValueError(f"{len(values)} signals of layers {list(made.layers)} for {made.count} prompts of one layer")
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("signals outside 0 to 1")
    if missing := [name for name in COLUMNS if name not in table.columns]:
        raise ValueError(f"no column {missing[0]!r}")
