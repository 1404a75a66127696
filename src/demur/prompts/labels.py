"""The label of a prompt: harmless, harmful, or none.

In: what a file says, and the name of a study's set. Out: one of the two words, or None. A number is no label, because
files disagree on which of 0 and 1 is harmful; whoever knows says it by the option.
"""

from __future__ import annotations

from typing import Any

from demur.errors import InputError
from demur.prompts.options import LABELS, ReadOptions

WORDS = {
    **dict.fromkeys(("harmless", "safe", "benign"), "harmless"),
    **dict.fromkeys(("harmful", "unsafe", "malicious"), "harmful"),
}
"""Labels of published sets that mean one of ours, case and blanks around them aside."""

HARMLESS_SETS = ("anchors_harmless", "guard_train_harmless", "guard_calibration_harmless", "test_harmless")
HARMFUL_SETS = ("anchors_harmful", "test_harmful", "test_attacks")
CONTROLS = "control_"


def label_of_set(name: str) -> str | None:
    """The label that all prompts of a study's set have by its name; None for any other name."""
    if name in HARMFUL_SETS:
        return "harmful"
    return "harmless" if name in HARMLESS_SETS or name.startswith(CONTROLS) else None


def checked_label(where: str, value: Any, options: ReadOptions, expected: str | None) -> str | None:
    """The label that `value` means; where it is missing, the one expected by the set's name.

    Raises `InputError` for any other value and for a label that contradicts the set's name.
    """
    found = None if value is None or value == "" else _meaning(where, value, options)
    if found is not None and expected is not None and found != expected:
        raise InputError(
            f"{where}: is labelled {found!r}, but by its name the set holds {expected} prompts; correct the label or "
            f"rename the file"
        )
    return found or expected


def _meaning(where: str, value: Any, options: ReadOptions) -> str:
    text = str(value).strip()
    for label in LABELS:
        given = options.labels.get(label, ())
        values = [given] if isinstance(given, str) or not isinstance(given, list | tuple | set) else given
        if any(str(one).strip() == text for one in values):
            return label
    if isinstance(value, str) and text.casefold() in WORDS:
        return WORDS[text.casefold()]
    raise InputError(
        f"{where}: label {text[:40]!r} is neither 'harmless' nor 'harmful'; say what it means by "
        f"--label harmful={text[:40]} (labels={{'harmful': {text[:40]!r}}}), or read no labels by --column label="
    )
