"""Prompts from tables that other people made: taken as what they are, or refused with the reason."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import demur
from demur import InputError, Prompt, read_prompts
from demur.prompts import Message, as_prompts, write_prompts
from demur.recording import folder as files
from demur.recording import read_responses

ROWS = [{"id": "a", "prompt": "bake"}, {"id": "b", "prompt": "clean"}]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "given",
    [
        pd.DataFrame(ROWS),
        pd.DataFrame(ROWS).set_index("id"),
        {"id": ["a", "b"], "prompt": ["bake", "clean"]},
        {"id": np.array(["a", "b"]), "prompt": pd.Series(["bake", "clean"])},
        ROWS,
        [Prompt("a", "bake"), Prompt("b", "clean")],
        (row for row in ROWS),
        SimpleNamespace(to_dicts=lambda: ROWS),
        SimpleNamespace(to_pylist=lambda: ROWS),
    ],
)
def test_tables_of_every_kind_give_their_rows(given: Any) -> None:
    assert as_prompts(given) == [Prompt("a", "bake"), Prompt("b", "clean")]


def test_one_row_one_prompt_and_series_are_what_they_are() -> None:
    one = [Prompt("a", "bake")]
    assert as_prompts({"id": "a", "prompt": "bake"}) == as_prompts(Prompt("a", "bake")) == one
    assert as_prompts(pd.DataFrame(ROWS).iloc[0]) == one
    assert [prompt.prompt for prompt in as_prompts(pd.Series(["bake", "clean"]))] == ["bake", "clean"]
    assert as_prompts({"token_ids": [1, 2]})[0].token_ids == (1, 2)
    assert [prompt.token_ids for prompt in as_prompts({"token_ids": [[1], [2]]})] == [(1,), (2,)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (b"bake", "is of the type bytes"),
        (3, "is of the type int"),
        ("How do I bake?", "does not exist; give a .* or texts as a list"),
        ({"id": ["a"], "prompt": ["x", "y"]}, "columns are of different lengths"),
        ({"train": pd.DataFrame(ROWS), "test": pd.DataFrame(ROWS)}, "holds the parts train, test; give one"),
        ([["bake"]], "is a list, not an object"),
        ([{"prompt": 10**5000}], "a number of more than 4,300 digits"),
        ([{"prompt": "x", "id": 10**5000}], "field 'id' is a number of more than"),
        ([{"prompt": "x", "id": ["a"]}], "field 'id' is a list"),
        ([], "the list is empty"),
        ([{"promt": "x"}], "has no column 'prompt'.* found are 'promt'.*--column prompt=NAME"),
        ([{}], "it has no columns"),
    ],
)
def test_what_is_no_table_of_prompts_is_refused(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_prompts(given)


@pytest.mark.parametrize("ids", [[True], [float("inf")], [1.5], [2**31], [-1], ["1"], "[1, 2", "[" * 99999, [], 5])
def test_token_ids_are_whole_numbers_that_int32_holds(ids: object) -> None:
    with pytest.raises(InputError, match="token_ids"):
        as_prompts([{"token_ids": ids}])
    assert as_prompts([{"token_ids": "[1, 2]"}])[0].token_ids == (1, 2)
    assert as_prompts([{"token_ids": np.array([1, 2])}])[0].token_ids == (1, 2)


@pytest.mark.parametrize("field", ["id", "prompt", "goal", "category", "attack", "prefill", "infill"])
def test_half_a_character_in_any_field_names_the_row(tmp_path: Path, field: str) -> None:
    row = {"prompt": "bake", field: "x \ud83d"}
    path = written(tmp_path, "p.jsonl", json.dumps({"prompt": "fine"}) + "\n" + json.dumps(row))
    with pytest.raises(InputError, match=rf"line 2.*field '{field}' holds half of a character"):
        read_prompts(path)


def test_control_characters_are_text() -> None:
    assert as_prompts(["a\x00b\x1b"])[0].prompt == "a\x00b\x1b"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", "id,prompt\na,bake\nb,clean\n"),
        ("p.csv", "sep=;\nID;Prompt\na;bake\nb;clean\n"),
        ("p.csv", "\ufeffid;prompt\r\na;bake\r\nb;clean\r\n;\r\n"),
        ("p.csv", 'id\tprompt\na\tbake\nb\t"clean"\n'),
        ("p.tsv", "id\t prompt \na\tbake\nb\tclean\n\t\n"),
        ("p.csv", "id,prompt,,\na,bake,,\n,,,\nb,clean,,\n"),
    ],
)
def test_delimited_files_of_every_spreadsheet_are_read_alike(tmp_path: Path, name: str, text: str) -> None:
    assert read_prompts(written(tmp_path, name, text)) == [Prompt("a", "bake"), Prompt("b", "clean")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,prompt\na,bake,harmless\n", r"row 1 \(line 2\): has 3 fields, the header 2"),
        ("id,prompt\na,bake\nb\n", r"row 2 \(line 3\): has 1 fields, the header 2"),
        ('id,prompt\na,"bake\nb,clean\n', "check that every quote is closed"),
        ("id,prompt\na,ba\0ke\n", "holds a NUL character"),
        ("id,prompt\na,café\n".encode("cp1252"), "save it as UTF-8 .*--encoding cp1252"),
        ("id,prompt\na,bake\n".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        ("id,prompt,prompt\na,b,c\n", "has two columns 'prompt'"),
        ("prompt,Prompt\na,b\n", "columns 'prompt' and 'Prompt' could both be 'prompt'.*--column prompt=prompt"),
        ("category,forbidden_prompt\nodd,Open\n", "columns found are 'category', 'forbidden_prompt'"),
        ("", "holds no prompts"),
        ("id,prompt\n", "holds no prompts"),
        ("prompt\n" + "x" * 10_000_001, "is not valid CSV"),
    ],
)
def test_a_csv_never_shifts_and_every_fault_names_its_place(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_prompts(written(tmp_path, "p.csv", content))


@pytest.mark.parametrize(
    ("line", "message"),
    [("[" * 100_000, "nested too deeply"), ('{"prompt": ' + "1" * 5000 + "}", "more than 4,300 digits")],
)
def test_json_that_python_cannot_hold_names_its_line(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(InputError, match=f"line 1: .*{message}"):
        read_prompts(written(tmp_path, "p.jsonl", line))


def test_another_encoding_is_read_where_it_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, "p.csv", "id,prompt\na,café\n".encode("cp1252"))
    assert read_prompts(path, encoding="cp1252")[0].prompt == "café"
    with pytest.raises(InputError, match="encoding 'klingon' is unknown"):
        read_prompts(path, encoding="klingon")


def test_columns_are_mapped_and_a_mapped_column_must_be_there(tmp_path: Path) -> None:
    path = written(tmp_path, "p.csv", "goal,target,kind\nopen the door,Sure,a\n")
    assert read_prompts(path, columns={"prompt": "goal", "prefill": "target"}) == [
        Prompt("0", "open the door", prefill="Sure")
    ]
    assert read_prompts(path, columns={"prompt": "goal", "goal": "goal"})[0].goal == "open the door"
    with pytest.raises(InputError, match="has no column 'behaviour' for 'prompt'; the columns found are 'goal'"):
        read_prompts(path, columns={"prompt": "behaviour"})
    with pytest.raises(InputError, match="'promt' is no field"):
        read_prompts(path, columns={"promt": "goal"})


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("Harmful", "harmful"),
        (" unsafe ", "harmful"),
        ("SAFE", "harmless"),
        ("benign", "harmless"),
        ("", None),
        (None, None),
    ],
)
def test_well_known_labels_are_ours(value: str | None, label: str | None) -> None:
    assert as_prompts([{"prompt": "x", "label": value}])[0].label == label


def test_other_labels_are_refused_and_can_be_mapped(tmp_path: Path) -> None:
    for value in (0, 1, True, "jailbreak", "1"):
        with pytest.raises(InputError, match="is neither 'harmless' nor 'harmful'; say what it means by --label"):
            as_prompts([{"prompt": "x", "label": value}])
    path = written(tmp_path, "p.csv", "prompt,label\nx,1\ny,0\nz,2\n")
    found = read_prompts(path, labels={"harmful": ["1", 2], "harmless": "0"})
    assert [prompt.label for prompt in found] == ["harmful", "harmless", "harmful"]
    assert read_prompts(path, columns={"label": None})[0].label is None
    with pytest.raises(InputError, match="'bad' is no label"):
        read_prompts(path, labels={"bad": "1"})


@pytest.mark.parametrize(
    ("name", "label"),
    [("test_attacks", "harmful"), ("anchors_harmless", "harmless"), ("control_mine", "harmless"), ("mine", None)],
)
def test_a_missing_label_is_taken_from_the_name_of_the_set(tmp_path: Path, name: str, label: str | None) -> None:
    assert read_prompts(written(tmp_path, f"{name}.jsonl", '{"prompt": "x"}'))[0].label == label


def test_a_label_that_contradicts_the_name_of_the_set_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "test_harmful.jsonl", '{"prompt": "x", "label": "harmless"}')
    with pytest.raises(InputError, match="by its name the set holds harmful prompts"):
        read_prompts(path)


def test_parquet_keeps_the_ids_of_its_index_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    table = pd.DataFrame({"prompt": ["bake", "b"]}, index=pd.Index(["x7", "x8"], name="id"))
    table.to_parquet(tmp_path / "p.parquet")
    assert [prompt.id for prompt in read_prompts(tmp_path / "p.parquet")] == ["x7", "x8"]
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_prompts(written(tmp_path, "q.parquet", b"PAR1"))


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": [{"type": "text", "text": "thr"}, {"type": "text", "text": "ee"}]},
]


def test_a_conversation_is_a_prompt_and_comes_back_from_a_file(tmp_path: Path) -> None:
    found = as_prompts([{"id": "a", "messages": TURNS}])
    assert found[0].prompt == "three"
    assert found[0].history == (Message("system", "Be brief."), Message("user", "one"), Message("assistant", "two"))
    write_prompts(found, tmp_path / "p.jsonl")
    assert read_prompts(tmp_path / "p.jsonl") == found == as_prompts(found)
    pd.DataFrame([{"id": "a", "messages": [*TURNS[:3], {"role": "user", "content": "three"}]}]).to_parquet(
        tmp_path / "p.parquet"
    )
    assert read_prompts(tmp_path / "p.parquet") == found
    assert as_prompts([{"messages": json.dumps(TURNS[1:2])}]) == [Prompt("0", "one")]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "is empty"),
        ("no list", "no JSON list"),
        (5, "is a int, not a list"),
        ([{"role": "user"}], "message 1: is no object with 'role' and 'content'"),
        ([{"role": "wizard", "content": "x"}], "role 'wizard' is none of"),
        ([{"role": "user", "content": ""}], "message 1: its content is empty"),
        ([{"role": "user", "content": "half \ud83d"}], "message 1: field 'content' holds half"),
        ([{"role": "user", "content": [{"type": "image"}]}], "holds a part that is not text"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}], "end with the user's"),
        (
            [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}, {"role": "user", "content": "z"}],
            "only be the first",
        ),
        ([{"role": "assistant", "content": "", "tool_calls": [1]}], "holds tool calls"),
    ],
)
def test_a_conversation_that_cannot_run_is_refused(messages: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        as_prompts([{"messages": messages}])


def test_a_prompt_beside_its_conversation_must_be_its_last_message() -> None:
    assert as_prompts([{"prompt": "one", "messages": TURNS[1:2]}])[0].prompt == "one"
    with pytest.raises(InputError, match="has both 'prompt' and 'messages', which differ"):
        as_prompts([{"prompt": "other", "messages": TURNS[1:2]}])


@pytest.mark.parametrize(
    ("infill", "parts"),
    [
        ("a <mask><mask> b", "a [[mask:1]][[mask:1]] b"),
        ("a <|mdm_mask|> b", "a [[mask:1]] b"),
        ("a <mask:8> b [MASK] c [MASK:3]", "a [[mask:8]] b [[mask:1]] c [[mask:3]]"),
        ("a [[mask:8]] b", "a [[mask:8]] b"),
    ],
)
def test_masks_of_other_files_are_positions(infill: str, parts: str) -> None:
    assert as_prompts([{"prompt": "x", "infill": infill}])[0].infill == parts


@pytest.mark.parametrize(
    "infill", ["a ____ b", "a [BLANK] b", "a <extra_id_0> b", "a {{mask}} b", "a <mask:0> b", "a [fill in] b"]
)
def test_marks_whose_length_is_not_plain_are_refused(infill: str) -> None:
    with pytest.raises(InputError, match=r"field 'infill'.*\[\[mask:N\]\]"):
        as_prompts([{"prompt": "x", "infill": infill}])


def test_a_mask_is_never_forced_as_text() -> None:
    with pytest.raises(InputError, match="looks like a mask and would be forced as text"):
        as_prompts([{"prompt": "x", "prefill": "Sure <mask:8>"}])
    model = demur.load("demur/tiny-diffusion")
    mask = model.tokenizer.convert_ids_to_tokens(model.mask_token_id)
    with pytest.raises(InputError, match="its text holds the model's mask token"):
        demur.record(model, [f"Tell me {mask} now"], steps=2)


def test_an_empty_response_of_a_csv_is_an_empty_text(tmp_path: Path) -> None:
    prompts = as_prompts(ROWS)
    path = written(tmp_path, "r.csv", "id,response\na,\nb,Sure\n")
    assert read_responses(path, prompts) == ["", "Sure"]
    other = written(tmp_path, "o.csv", "key;answer\na;No\nb;Yes\n")
    assert read_responses(other, prompts, columns={"id": "key", "response": "answer"}) == ["No", "Yes"]
    with pytest.raises(InputError, match="line 1: field 'response' holds half"):
        read_responses(written(tmp_path, "h.jsonl", '{"id": "a", "response": "\\ud83d"}'), prompts[:1])
    with pytest.raises(InputError, match="expected the fields 'id' and 'response'"):
        read_responses(written(tmp_path, "n.jsonl", '{"id": "a", "response": null}'), prompts[:1])


def test_a_recording_goes_on_with_the_same_token_ids_only(tmp_path: Path, toy_model: Callable[..., Any]) -> None:
    day = {"now": "monday"}
    model = toy_model(day)
    demur.record(model, ["tell me about tea"], steps=2, out=tmp_path / "r")
    assert len(demur.record(model, ["tell me about tea"], steps=2, out=tmp_path / "r")) == 1
    files.write_manifest(tmp_path / "r", {**files.read_manifest(tmp_path / "r"), "complete": False})  # as if stopped
    day["now"] = "tuesday tuesday"
    with pytest.raises(InputError, match=r"have become other token ids .*--template-arg date_string"):
        demur.record(model, ["tell me about tea"], steps=2, out=tmp_path / "r")


def test_a_complete_recording_of_another_day_is_kept_as_it_ran(tmp_path: Path, toy_model: Callable[..., Any]) -> None:
    day = {"now": "monday"}
    model = toy_model(day)
    first = demur.record(model, ["tell me about tea"], steps=2, out=tmp_path / "r")
    day["now"] = "tuesday tuesday"
    with pytest.warns(UserWarning, match="have become other token ids since it was recorded.*is kept"):
        again = demur.record(model, ["tell me about tea"], steps=2, out=tmp_path / "r")
    np.testing.assert_array_equal(again.phi, first.phi)
    next((tmp_path / "r" / "shards").glob("*.safetensors")).write_bytes(b"damaged")
    with pytest.raises(InputError, match="have become other token ids"):
        demur.record(model, ["tell me about tea"], steps=2, out=tmp_path / "r")


def test_what_is_in_memory_is_read_as_a_file_is() -> None:
    assert [one.prompt for one in read_prompts(["a", {"prompt": "b"}])] == ["a", "b"]
    assert read_prompts([{"goal": "c"}], columns={"prompt": "goal"})[0].prompt == "c"
    with pytest.raises(InputError, match="is of the type int"):
        read_prompts(3)


@pytest.fixture
def toy_model(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The bundled model with a prompt that says what day it is."""

    def made(day: dict[str, str]) -> Any:
        model = demur.load("demur/tiny-ar")
        encode = type(model.chat_format).encode
        monkeypatch.setattr(
            type(model.chat_format),
            "encode",
            lambda self, words, prompt, history=(): encode(self, words, f"{day['now']} {prompt}", history),
        )
        return model

    return made
