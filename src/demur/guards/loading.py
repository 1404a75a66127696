"""Guards on disk and on the Hub, whichever they are.

In: a file that a guard saved itself in, a folder that one was shared as, or a name of the Hub. Out: the guard. What is
in the file is each guard's own business, and which guards there are is theirs to say: each is in `GUARDS` once its
module is imported.
"""

from __future__ import annotations

import os
from pathlib import Path

from demur.files.arrays import read_arrays
from demur.guards.base import GUARDS, Guard
from demur.sharing import is_hub_name


def load_guard(path: str | os.PathLike[str], *, allow_unverified: bool = False) -> Guard:
    """The guard that `save` wrote to a file, of its own class; `InputError` where there is none.

    path : a file; a folder that `save_pretrained` wrote; or "owner/name" of the Hugging Face Hub, "owner/name@revision"
        for one commit. A file or folder here goes before the Hub. allow_unverified : read files of demur 0.1 too, which
        carry no hash.
    """
    if Path(path).is_dir() or is_hub_name(path):
        return Guard.from_pretrained(path)
    _, header = read_arrays(path, *GUARDS.names(), allow_unverified=allow_unverified)
    guard: Guard = GUARDS[header["kind"]].load(path, allow_unverified=allow_unverified)
    return guard
