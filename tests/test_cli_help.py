"""Help of every command: an example, whole descriptions, the version and completion."""

import pytest
from typer.main import get_command
from typer.testing import CliRunner

import demur
from demur.cli import app

GROUP = get_command(app)
COMMANDS = [name.split() for name in GROUP.commands if name != "guard"]  # type: ignore[attr-defined]
COMMANDS += [["guard", name] for name in GROUP.commands["guard"].commands]  # type: ignore[attr-defined]


def _help(*command: str) -> str:
    ran = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert ran.exit_code == 0, ran.output
    return ran.stdout


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_shows_an_example_of_itself(command: list[str]) -> None:
    page = _help(*command)
    assert "Example" in page and f"\n    demur {' '.join(command)} " in page


@pytest.mark.parametrize("group", [[], ["guard"]], ids=["demur", "guard"])
def test_no_description_is_cut_at_80_columns(group: list[str]) -> None:
    page = _help(*group)
    assert "..." not in page.split("Commands:")[1]
    assert max(map(len, page.splitlines())) <= 80


def test_the_version_is_told_and_completion_is_there() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"demur {demur.__version__}\n"
    assert "--install-completion" in _help()
