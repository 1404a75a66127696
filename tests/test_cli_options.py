"""Options of the chat format and of prompt tables on the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from demur import InputError
from demur.cli.arguments import chat_options, columns_of, read_options
from demur.cli.commands import app


def test_only_what_is_asked_for_is_passed_on() -> None:
    assert chat_options(None, False, None, None) == {}
    assert chat_options(None, True, None, None) == {"system": None}
    assert chat_options("Be brief.", False, "rag", ["enable_thinking=false"]) == {
        "system": "Be brief.",
        "template": "rag",
        "template_arguments": {"enable_thinking": False},
    }
    with pytest.raises(InputError, match="exclude each other"):
        chat_options("Be brief.", True, None, None)


def test_columns_and_labels_are_pairs() -> None:
    read = read_options(["prompt=goal", "label="], ["harmful=1", "harmful=2"], "cp1252")
    assert read.columns == {"prompt": "goal", "label": None}
    assert read.labels == {"harmful": ["1", "2"]}
    assert read.encoding == "cp1252"
    with pytest.raises(InputError, match="--response-column 'id' is not of the form FIELD=COLUMN"):
        columns_of("--response-column", ["id"])


def test_record_takes_the_system_prompt_and_the_columns(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("key;goal;bad\na;Tell me about tea.;0\n")
    options = ["--column", "id=key", "--column", "prompt=goal", "--column", "label=bad", "--label", "harmless=0"]
    command = ["record", "demur/tiny-ar", str(tmp_path / "p.csv"), "--out", str(tmp_path / "r"), "--steps", "2"]
    found = CliRunner().invoke(app, [*command, *options, "--system", "Be brief."], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    manifest = json.loads((tmp_path / "r" / "manifest.json").read_text())
    assert manifest["provenance"]["chat_format"]["system"] == "Be brief."
    with pytest.raises(InputError, match="differs in"):
        CliRunner().invoke(app, [*command, *options, "--no-system"], catch_exceptions=False)


def test_serve_loads_a_model_as_of_the_family_that_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    import demur.serve

    seen: dict[str, object] = {}

    def loading(model: str, *more: Any) -> None:
        seen.update(more[3], model=model)
        raise InputError("far enough")

    monkeypatch.setattr(demur.serve, "load_guards", lambda places: [])
    monkeypatch.setattr("demur.cli.serve.load_model", loading)
    ran = CliRunner().invoke(app, ["serve", "some/model", "--guard", "runs/x", "--family", "autoregressive"])
    assert isinstance(ran.exception, InputError) and str(ran.exception) == "far enough"
    assert seen == {"model": "some/model", "family": "autoregressive"}
