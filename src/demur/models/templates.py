"""Renders chat templates, which are programs from the checkpoint's author, within limits.

In: a tokenizer, a template's text and messages. Out: the text that the template makes of them, or an `InputError` in
one line. The sandbox is that of transformers; time, memory and length are limited here. Which messages a template
takes is the business of `chat`.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from demur.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECONDS = 3
"""Processor time that one rendering may take."""
LONGEST = 4_000_000
"""Characters that one rendering may have beyond those it is given."""
MEMORY = 512 * 2**20
"""Bytes that one rendering may take."""
_WAIT = 60
"""Seconds after which a rendering that does not even compute is given up."""

Turns = Sequence[Mapping[str, Any]]


class TemplateFault(InputError):
    """A template that cannot be used for the messages it was given."""


def render(
    tokenizer: PreTrainedTokenizerBase, template: str | None, arguments: Mapping[str, Any], messages: Turns
) -> str:
    """The text of `messages` with the opening of the response; `TemplateFault` for any error of the template.

    template : its text, or None for the tokenizer's own. arguments : further variables that the template reads.
    """
    try:
        with limited():
            text = tokenizer.apply_chat_template(
                [dict(message) for message in messages],
                chat_template=template,
                add_generation_prompt=True,
                tokenize=False,
                **arguments,
            )
    except Exception as error:  # a template can raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TemplateFault(f"the chat template fails ({type(error).__name__}: {reason})") from error
    if len(str(text)) > LONGEST + sum(len(str(message)) for message in messages):
        raise TemplateFault(f"the chat template makes more than {LONGEST} characters of one prompt")
    return str(text)


def require_harmless(
    tokenizer: PreTrainedTokenizerBase, template: str | None, arguments: Mapping[str, Any], probes: Sequence[Turns]
) -> None:
    """Render `probes` in a process of its own first, which a template cannot hang or fill the memory of.

    Only what runs away is an error here: a template that raises is found out by `render`. Where the system cannot
    fork a process this does nothing.
    """
    if not hasattr(os, "fork"):
        return
    read, write = os.pipe()
    child = _fork()
    if child == 0:  # pragma: no cover - another process, which never returns from here
        _probe(read, write, tokenizer, template, arguments, probes)
    os.close(write)
    try:
        answer = _answer(read)
    finally:
        os.close(read)
        with suppress(ProcessLookupError):
            os.kill(child, 9)
        os.waitpid(child, 0)
    if answer != b"done":
        raise TemplateFault(
            f"the chat template does not end within {SECONDS} s of computing and {MEMORY >> 20} MB of memory, so it is "
            f"not run"
        )


def _fork() -> int:
    """Fork without the warnings of libraries that have threads: the child renders text and nothing else."""
    name = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(name)
    os.environ[name] = before or "false"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return os.fork()
    finally:
        if before is None:
            del os.environ[name]


def _probe(
    read: int,
    write: int,
    tokenizer: Any,
    template: str | None,
    arguments: Mapping[str, Any],
    probes: Sequence[Turns],
) -> None:  # pragma: no cover - runs in a process of its own
    import resource

    try:
        os.close(read)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        with suppress(ValueError, OSError):
            limit = _address_space() + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        fine = True
        for messages in probes:
            try:
                render(tokenizer, template, arguments, messages)
            except InputError as error:
                fine = fine and not isinstance(error.__cause__, MemoryError | TemplateTimeout)
        os.write(write, b"done" if fine else b"over")
    finally:
        os._exit(0)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _answer(read: int) -> bytes:
    """What the child writes; nothing where it dies or does not answer in time."""
    ready, _, _ = select.select([read], [], [], _WAIT)
    return os.read(read, 16) if ready else b""


class TemplateTimeout(Exception):
    """A rendering that takes too long."""


@contextmanager
def limited() -> Iterator[None]:
    """Stop what runs in here after `SECONDS`, line by line: a template that behaved for the probes may still hang."""
    deadline = time.thread_time() + SECONDS  # of this thread, so that a busy machine fails nothing
    before = sys.gettrace()

    def watch(frame: Any, event: str, argument: Any) -> Any:
        if time.thread_time() > deadline:
            raise TemplateTimeout(f"no end after {SECONDS} s")
        return watch

    sys.settrace(watch)
    try:
        yield
    finally:
        sys.settrace(before)


def argument_of(text: str) -> tuple[str, Any]:
    """A template's argument from NAME=VALUE, the value read as JSON and as text where it is none."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"--template-arg {text!r} is not of the form NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
