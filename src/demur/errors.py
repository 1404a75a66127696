"""The errors that demur raises on purpose.

`InputError` is for whatever the caller can mend (a file, a row, an argument); the command line prints
it as one line and exits with 2. `ProvenanceError` is its special case: two things that do not belong
together, both named.
"""


class DemurError(Exception):
    """Base of every error that demur raises on purpose."""


class InputError(DemurError, ValueError):
    """Input that cannot be used: says what was found, what was expected and what to do."""


class ProvenanceError(InputError):
    """Two things made from different models, samplers or layers were used together."""
