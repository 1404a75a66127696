"""The judges that plugins add, by name.

In: a function from a text to a `Judge`, registered with `@JUDGES.register(name)`. Out: the judge that is asked for as
`name`, with an empty text, or as `name:text`. Those of demur itself need models and files, and are named in studies.
"""

from __future__ import annotations

from collections.abc import Callable

from demur.judges.judge import Judge
from demur.plugins import Registry

JUDGES: Registry[Callable[[str], Judge]] = Registry("judge")
