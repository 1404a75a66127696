"""The signal of a recording as a table on disk.

In: a recording and anchors. Out: a Parquet file, a row a generation with its signal as a list, which carries
what it was made from in its schema; and the same read back as a `Signal`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from demur.errors import InputError
from demur.provenance import Provenance
from demur.recording.folder import disk_errors
from demur.recording.recording import Recording
from demur.signal import Anchors, Signal

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ["id", "group", "label", "attack", "refused"]
HEADER = b"demur"


def write_signal(recording: Recording, anchors: Anchors, path: str | Path) -> Signal:
    """Compute the signal of a recording (or take the stored one) and write it to a Parquet file."""
    signal = recording.sigma if recording.keep == "signal" else anchors.signal(recording)
    table = pa.Table.from_pandas(recording.table[COLUMNS].assign(signal=list(np.asarray(signal))), preserve_index=False)
    provenance = signal.provenance or recording.provenance
    header = {HEADER: json.dumps(provenance.to_dict(), sort_keys=True).encode()}
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), **header})
    with disk_errors(Path(path)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
    return signal


def read_signal(path: str | Path) -> tuple[pd.DataFrame, Signal]:
    """The table of a signal file without the signal, and the signal float32 ``[generations, steps]``."""
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such signal file; `demur signal RECORDING --anchors FILE --out {path}` writes one"
        )
    try:
        stored = pq.read_table(path)
        made = Provenance.from_dict(json.loads(stored.schema.metadata[HEADER]))
    except (pa.ArrowInvalid, KeyError, TypeError) as error:
        raise InputError(f"{path}: is no signal file of demur ({error}); give one that `demur signal` wrote") from error
    table = stored.to_pandas()
    values = np.stack(list(table.pop("signal"))).astype(np.float32)
    return table, Signal(values, made)
