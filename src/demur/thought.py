"""What of a response is thought, and what is the answer.

In: the text of a response in which the marks of a thought are kept. Out: the spans of the thought, or the answer.
A thought that is not closed runs to the end: then there is no answer yet. Nothing here knows of tokens.
"""

from __future__ import annotations

import re

PAIRS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>", "<channel|>"),
    ("◁think▷", "◁/think▷"),
)
"""Marks before and behind a thought, of DeepSeek-R1, Qwen3 and many others, Seed-OSS, Magistral, Sky-T1, Command A,
Gemma 4 and Kimi."""
CHANNEL, MESSAGE = "<|channel|>", "<|message|>"
"""gpt-oss: ``<|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…``."""
_TURN_ENDS = ("<|end|>", "<|return|>", "<|call|>", "<|start|>")
_ANSWER_MARKS = ("<|begin_of_solution|>", "<|end_of_solution|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>")

MARKS = frozenset({*(mark for pair in PAIRS for mark in pair), CHANNEL, MESSAGE, *_TURN_ENDS, *_ANSWER_MARKS})
"""Marks that are single special tokens in some tokenizers and must survive decoding."""

_CLOSES = dict(PAIRS)
_OPENS = {close: opening for opening, close in PAIRS}
_TAG = re.compile("|".join(re.escape(mark) for pair in PAIRS for mark in pair))
_HEADER = re.compile(rf"{re.escape(CHANNEL)}\s*(\w*)(.*?)(?:{re.escape(MESSAGE)}|\Z)", re.DOTALL)
_END = re.compile("|".join(map(re.escape, (*_TURN_ENDS, CHANNEL))))
_NO_TEXT = re.compile("|".join(map(re.escape, (*_TURN_ENDS, *_ANSWER_MARKS, MESSAGE))))


def answer_of(text: str) -> str:
    """The text without its thought and the marks around it; the whole text, as it is, where it has none."""
    if not any(mark in text for mark in MARKS):
        return text
    kept, place = [], 0
    for start, end in thought_spans(text):
        kept.append(text[place:start])
        place = end
    return _NO_TEXT.sub("", "".join([*kept, text[place:]])).strip()


def thought_spans(text: str) -> list[tuple[int, int]]:
    """The stretches of a text that are thought, marks included, as pairs of first and end place."""
    return _channel_spans(text) if CHANNEL in text else _tag_spans(text)


def opening_of(beginning: str) -> str:
    """What opens a thought at the end of a prompt that holds no answer yet; "" where none is open.

    beginning : what a chat template writes behind the user message.
    """
    header = list(_HEADER.finditer(beginning))
    if header and header[-1][1] != "final" and not _END.search(beginning, header[-1].end()):
        return header[-1][0]
    open_tags: list[str] = []
    for tag in _TAG.finditer(beginning):
        open_tags = [tag[0]] if tag[0] in _CLOSES else []
    return open_tags[0] if open_tags else ""


def _tag_spans(text: str) -> list[tuple[int, int]]:
    """Spans between marks; what stands before a mark that closes a thought nobody opened is thought as well."""
    spans: list[tuple[int, int]] = []
    opened: tuple[int, str] | None = None
    for tag in _TAG.finditer(text):
        if opened is None and tag[0] in _CLOSES:
            opened = tag.start(), _CLOSES[tag[0]]
        elif opened is not None and tag[0] == opened[1]:
            spans.append((opened[0], tag.end()))
            opened = None
        elif opened is None:
            spans = [(0, tag.end())]
    return spans if opened is None else [*spans, (opened[0], len(text))]


def _channel_spans(text: str) -> list[tuple[int, int]]:
    """Everything but the content of the channel "final"."""
    spans, place = [], 0
    for header in _HEADER.finditer(text):
        if header[1] == "final" and MESSAGE in header[0]:
            spans.append((place, header.end()))
            end = _END.search(text, header.end())
            place = len(text) if end is None else end.start()
    return [*spans, (place, len(text))] if place < len(text) else spans
