"""Guards on disk, whichever they are.

In: a file that a guard saved itself in. Out: the guard. What is in the file is each guard's own business, and which
guards there are is theirs to say: each is in `GUARDS` once its module is imported.
"""

from __future__ import annotations

import os

from demur.files.arrays import read_arrays
from demur.guards.base import GUARDS, Guard


def load_guard(path: str | os.PathLike[str], *, allow_unverified: bool = False) -> Guard:
    """The guard that `save` wrote to a file, of its own class; `InputError` where the file holds none.

    allow_unverified : read files of demur 0.1 too, which carry no hash.
    """
    _, header = read_arrays(path, *GUARDS.names(), allow_unverified=allow_unverified)
    guard: Guard = GUARDS[header["kind"]].load(path, allow_unverified=allow_unverified)
    return guard
