"""The code of the page of recipes, run as printed against a server on a port of its own."""

import re
from pathlib import Path

from serving import app_of, running, served

PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"


def test_the_recipes_for_openais_client_run_as_printed(capsys) -> None:  # type: ignore[no-untyped-def]
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(# needs a server of demur\n.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    with running(app_of(served())) as address:
        for block in blocks:
            exec(compile(block.replace("http://127.0.0.1:8000", address), str(PAGE), "exec"), names)
    assert "jailbreak" in capsys.readouterr().out
    assert names["reason"] in ("stop", "length", "content_filter")
