"""The row about prompts: two texts become token ids and come out again, whole and different.

In: a model. Out: which format is used, whether the system prompt and both texts reach the network, and whether the
beginning-of-sequence token stands there once.
"""

from __future__ import annotations

from demur.checks.result import Outcome, Row
from demur.checks.texts import taken, words_of
from demur.models import Model

NAME, MEASURED = "prompt", "two texts through the chat format and back"


def prompt_row(model: Model) -> Row:
    """The verdict on the model's chat format."""
    tokenizer = model.tokenizer
    if tokenizer is None:
        return Row(NAME, MEASURED, outcome="not run", note="there is no tokenizer; prompts are given as token ids")
    words = words_of(model)
    texts = [" ".join(taken(words, 0, 7)), " ".join(taken(words, 4, 9))]
    ids = [model.encode(text) for text in texts]
    rendered = [str(tokenizer.decode(row)) for row in ids]
    faults = [f"text {place + 1} does not come out whole" for place in range(2) if not _holds(rendered, texts, place)]
    if ids[0] == ids[1]:
        faults.append("both texts give the same token ids")
    bos = tokenizer.bos_token_id
    begins = 0 if bos is None else next((place for place, token in enumerate(ids[0]) if token != bos), len(ids[0]))
    if begins > 1:
        faults.append(f"the beginning-of-sequence token stands there {begins} times")
    value = [_format(model, rendered[0]), "BOS once" if begins == 1 else "no BOS" if not begins else "BOS repeated"]
    value.append(f"{len(ids[0])} and {len(ids[1])} tokens")
    numbers = {"bos": begins, "faults": len(faults)}
    limit = "texts whole and different, BOS at most once"
    outcome: Outcome = "failed" if faults else "ok"
    return Row(NAME, MEASURED, ", ".join(value), limit, outcome, "; ".join(faults), numbers)


def _format(model: Model, rendered: str) -> str:
    """The chat format in words: its kind, where the system prompt stands, and how it treats thoughts."""
    chat = model.chat_format
    told = "the model's template" if chat.kind == "template" else f"format {chat.kind!r}"
    place = "folded into the user turn" if chat.folded else "in its place"
    arrived = chat.system is not None and _bare(chat.system) in _bare(rendered)
    system = f"system prompt {place}" if arrived else "no system prompt"
    template = str(getattr(model.tokenizer, "chat_template", "") or "")
    thoughts = "think" in template
    opened = rendered.rstrip().endswith("<think>")
    return ", ".join([told, system, *(["a thought is opened" if opened else "knows thoughts"] if thoughts else [])])


def _holds(rendered: list[str], texts: list[str], place: int) -> bool:
    return _bare(texts[place]) in _bare(rendered[place])


def _bare(text: str) -> str:
    """Without white space and case, which some tokenizers do not keep."""
    return "".join(text.split()).casefold()
