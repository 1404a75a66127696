"""The card of a shared folder: README.md with what the thing was made from, what it promises and what was measured.

In: summaries as plain values. Out: Markdown with the Hub's metadata in front. Nothing is computed here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub import ModelCard

_TEMPLATE = """---
{{ card_data }}
---

# {{ name }} for {{ model }}

{% if promise %}A guard of demur: it gives generations of one model an anomaly score \
from their hidden states, and flags those above a threshold.{% else %}Anchors of \
demur: mean hidden states of answered harmless and of refused harmful prompts, from \
which the refusal signal of one model is computed.{% endif %} It holds for this model, sampler and layers only; demur \
refuses others.

```python
import demur

{% for name, variable in classes %}{{ variable }} = demur.{{ name }}.from_pretrained("{{ place }}")
{% endfor %}```

## Made from

| | |
|---|---|
{% for name, value in made %}| {{ name }} | {{ value }} |
{% endfor %}
{% if promise %}## What the threshold promises

{% for line in promise %}- {{ line }}
{% endfor %}
## Measured false positives

{% if measured %}Harmless prompts that were flagged, by kind, with 95% intervals (Wilson).

| kind | flagged | of | rate | 95% interval |
|---|---|---|---|---|
{% for row in measured %}| {{ row }} |
{% endfor %}{% else %}None were given. Measure on harmless prompts like your own before you rely on it.
{% endif %}
## Limits

A score says that a generation is unusual among the prompts of the calibration, not that it is harmful. Prompts of \
other kinds than those above may be flagged more often. Another dtype or engine moves the states a little: \
measure again there.
{% endif %}"""


def card(
    place: str,
    facts: Mapping[str, Any],
    measured: Sequence[Mapping[str, Any]],
    classes: Sequence[tuple[str, str]],
    license: str | None,
) -> ModelCard:
    """The card of what `facts` (a summary) says, whose false positives are `measured`.

    place : what others load it by. classes : pairs of class and variable, of all that is shared.
    license : its identifier on the Hub, None to name none.
    """
    from huggingface_hub import ModelCard, ModelCardData

    model = facts.get("model")
    based = {"base_model": model} if model and re.fullmatch(r"[\w.-]+/[\w.-]+", model) else {}
    tags = ["demur", "safety", "anchors" if facts["kind"] == "anchors" else "jailbreak-detection"]
    data = ModelCardData(library_name="demur", license=license, tags=tags, **based)
    made: ModelCard = ModelCard.from_template(
        data,
        template_str=_TEMPLATE,
        name=facts.get("guard", "Anchors"),
        model=_cell(PurePath(model).name if model and PurePath(model).is_absolute() else model or "an unnamed model"),
        place=place,
        classes=classes,
        made=[(name.replace("_", " "), _cell(value)) for name, value in _made(facts).items() if value is not None],
        promise=_promise(facts),
        measured=[" | ".join(_cell(one) for one in _row(row)) for row in measured],
    )
    return made


def _made(facts: Mapping[str, Any]) -> dict[str, Any]:
    left_out = {"guard", "model", "threshold", "calibrated_on", "false_positives_allowed", "false_positives", "kinds"}
    return {name: value for name, value in facts.items() if name not in left_out}


def _promise(facts: Mapping[str, Any]) -> list[str]:
    """What the calibration is worth, a sentence a line; empty for what has no threshold."""
    if "threshold" not in facts:
        return []
    allowed, ends = facts["false_positives_allowed"], facts["false_positives"]
    if ends is None:
        return ["It was not calibrated on held-out harmless generations, so it promises nothing."]
    interval = f"between {ends[0]:.2%} and {ends[1]:.2%} (95% interval)"
    lines = [
        f"The threshold is {facts['threshold']:.6g}, set on {facts['calibrated_on']} held-out harmless generations.",
        f"At most {allowed:.4g} of further harmless generations like them are to be flagged, in truth {interval}.",
    ]
    for kind, found in (facts.get("kinds") or {}).items():
        lines.append(f"{_cell(kind)}: calibrated on {found['count']}, at most {found['alpha']:.4g} flagged.")
    return lines


def _row(row: Mapping[str, Any]) -> tuple[Any, ...]:
    rate = row["hits"] / row["count"]
    return row["kind"], row["hits"], row["count"], f"{rate:.1%}", f"{row['low']:.1%} to {row['high']:.1%}"


def _cell(value: Any) -> str:
    """A value as text that stays within its cell, whatever a name holds."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{name} {_cell(one)}" for name, one in value.items())
    elif isinstance(value, list | tuple):
        value = ", ".join(map(_cell, value))
    return re.sub(r"[|<>`\[\]]", " ", " ".join(str(value).split()))
