"""The commands on README and the pages: each exists, and so does every option that is given to it."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from demur.cli.commands import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
BLOCK = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = ("", "console", "bash", "sh", "shell", "text")
COMMAND = get_command(app)
PLACES = re.compile(r"[\[\]…]|\.\.\.")
"""What stands for something in a form that is shown, as in ``[--limit N]``."""


def commands(text: str) -> Iterator[list[str]]:
    """The words of every command of demur in the blocks of a page."""
    for language, block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            line = line.removeprefix("$ ")
            if language in SHELL and line.startswith("demur ") and not PLACES.search(line.split(" #")[0]):
                yield shlex.split(line, comments=True)[1:]


def unknown(words: list[str]) -> list[str]:
    """The options and the command among `words` that do not exist."""
    command, words = COMMAND, ["study paper", *words[2:]] if words[:2] == ["study", "paper"] else words
    while words and hasattr(command, "commands") and words[0] in command.commands:
        command, words = command.commands[words[0]], words[1:]
    if hasattr(command, "commands") and not (words and words[0].startswith("-")):
        return words[:1]
    known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help", "--version"}
    return [word for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_on_a_page_exists_with_its_options(page: Path) -> None:
    assert [(words, found) for words in commands(page.read_text()) if (found := unknown(words))] == []


def test_commands_are_found_and_faults_told() -> None:
    assert sum(len(list(commands(page.read_text()))) for page in PAGES) > 40
    assert unknown(["study", "m", "--limt", "5"]) == ["--limt"] and unknown(["studdy", "m"]) == ["studdy"]
