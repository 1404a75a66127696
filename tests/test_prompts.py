"""Prompt sets: what is read, and what each fault says."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from demur import InputError, Prompt, read_prompts
from demur.prompts import as_prompts, prompts_hash


def write(folder: Path, *rows: object) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def test_rows_become_prompts_and_unknown_columns_are_ignored(tmp_path: Path) -> None:
    path = write(tmp_path, {"id": "a", "prompt": "hello", "label": "harmless", "source": "me"}, {"prompt": "again"})
    assert read_prompts(path) == [Prompt("a", "hello", "harmless"), Prompt("1", "again")]


def test_csv_and_parquet_give_the_same_prompts_as_jsonl(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "hello", "attack": "PAIR"}, {"id": "b", "prompt": "NA", "attack": None}]
    jsonl = read_prompts(write(tmp_path, *rows))
    pd.DataFrame(rows).to_csv(tmp_path / "p.csv", index=False)
    pd.DataFrame(rows).to_parquet(tmp_path / "p.parquet")
    assert read_prompts(tmp_path / "p.csv") == jsonl == read_prompts(tmp_path / "p.parquet")


def test_the_group_is_the_attack_or_else_the_label() -> None:
    assert Prompt("a", "x", "harmful", attack="PAIR").group == "PAIR"
    assert Prompt("a", "x", "harmful").group == "harmful"


def test_the_hash_follows_the_content() -> None:
    one, other = as_prompts(["hello"]), as_prompts(["hello!"])
    assert prompts_hash(one) == prompts_hash(as_prompts(["hello"])) != prompts_hash(other)


def test_limit_reads_the_first_rows_only(tmp_path: Path) -> None:
    assert len(read_prompts(write(tmp_path, *({"prompt": str(n)} for n in range(5))), limit=3)) == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no prompts"),
        (['{"prompt": "x"', ""], "line 1: is not valid JSON"),
        ([{"prompt": "x"}, "[1]"], "line 2: is a list"),
        ([{"prompt": "x"}, {"id": "b", "prompt": "  "}], r"line 2 \(id 'b'\): the prompt is empty"),
        ([{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}], "id 'a' stands already at line 1"),
        ([{"prompt": 3}], "field 'prompt' is 3, not text"),
        ([{"token_ids": [1, -2]}], "'token_ids' must be"),
        ([{"token_ids": []}], "'token_ids' must be"),
    ],
)
def test_a_fault_names_the_file_and_the_row(tmp_path: Path, rows: list[object], message: str) -> None:
    path = write(tmp_path, *rows)
    with pytest.raises(InputError, match=message) as caught:
        read_prompts(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_a_folder_and_an_unknown_ending_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: prompt file does not exist"):
        read_prompts(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="is a folder"):
        read_prompts(tmp_path)
    (tmp_path / "p.txt").write_text("x")
    with pytest.raises(InputError, match=r"unknown kind of prompt file '\.txt'"):
        read_prompts(tmp_path / "p.txt")


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_bytes(b'{"prompt": "caf\xe9"}')
    with pytest.raises(InputError, match="not UTF-8"):
        read_prompts(tmp_path / "p.jsonl")


def test_a_hub_data_set_is_read_by_name_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, split: str) -> list[dict[str, str]]:
        asked.append((name, split))
        return [{"id": "a", "prompt": "hello"}]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert read_prompts("hub:owner/set:test") == [Prompt("a", "hello")]
    assert read_prompts("hub:owner/set") == [Prompt("a", "hello")]
    assert asked == [("owner/set", "test"), ("owner/set", "train")]
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(InputError, match=r"pip install 'demur\[hub\]'"):
        read_prompts("hub:owner/set")


@pytest.mark.parametrize("name", ["turns", "history", "conversation", "conversations"])
def test_turns_in_a_field_that_is_not_read_are_refused(name: str) -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello."}]
    with pytest.raises(InputError, match=f"'{name}', which is not read; give the conversation as 'messages'"):
        read_prompts([{"prompt": "How do I make tea?", name: turns}])
    assert read_prompts([{"prompt": "How do I make tea?", name: 3}])[0].prompt == "How do I make tea?"
