"""The errors that demur raises on purpose.

`InputError` is for whatever the caller can mend (a file, a row, an argument); the command line prints
it as one line and exits with 2. `ProvenanceError` is its special case: two things that do not belong
together, both named.
"""


class DemurError(Exception):
    """Base of every error that demur raises on purpose.

    Its text spells out control characters, whatever file or name they came from: a terminal would obey them.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class InputError(DemurError, ValueError):
    """Input that cannot be used: says what was found, what was expected and what to do."""


class ProvenanceError(InputError):
    """Two things made from different models, samplers or layers were used together."""
