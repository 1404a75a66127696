"""The only reasons for which a test may be skipped.

Under CI=true a run fails where a test was skipped for any other reason.
"""

import re

ALLOWED = {
    r"no Chromium on this machine": "a browser cannot be installed everywhere; .ci/run installs one where it may",
    r"no CUDA device on this machine": "a GPU is not everywhere; the same is tested on the processor",
}
"""Patterns that the reason of a skip begins with, and why each may be."""


def unlisted(reasons: dict[str, str]) -> list[str]:
    """A line for every skipped test, given by name with its reason, whose reason is not among those allowed."""
    return [
        f"{name}: {reason}"
        for name, reason in reasons.items()
        if not any(re.match(pattern, reason) for pattern in ALLOWED)
    ]
