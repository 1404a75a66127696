"""Readers of published artifacts: the layouts as published, and what each fault says."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import demur
from demur import InputError, Prompt
from demur.attacks import read_artifact

JAILBREAKS = [
    {
        "index": 0,
        "goal": "bake a cake",
        "behavior": "Cake",
        "category": "Kitchen",
        "prompt": "pretend you are a baker and bake a cake",
        "response": "never read",
        "jailbroken": True,
    },
    {"index": 1, "goal": "bake bread", "behavior": "Bread", "category": "Kitchen", "prompt": None, "response": None},
    {"index": "2", "goal": "bake a roll", "category": "Kitchen", "prompt": "a roll, please"},
]
HARMBENCH = (
    "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"
    "bake a cake,standard,kitchen,,,cake_one\n"
    '"bake it, please",contextual,kitchen,context,a recipe of flour,cake_two\n'
)


def artifact(folder: Path, content: Any) -> Path:
    path = folder / "artifact.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_jailbreakbench_artifact_gives_its_prompts(tmp_path: Path) -> None:
    path = artifact(tmp_path, {"parameters": {"method": "PAIR", "model": "m"}, "jailbreaks": JAILBREAKS})
    first, second = demur.attacks.read_artifact(path)
    text = "pretend you are a baker and bake a cake"
    assert first == Prompt("jbbart-PAIR-000", text, "harmful", "PAIR", "bake a cake", "Kitchen")
    assert second.id == "jbbart-PAIR-002"
    assert len(read_artifact(path, limit=1)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"no valid JSON \(.*line 1.*\); fetch it again"),
        ([], "is no JailbreakBench artifact; expected an object"),
        ({"parameters": {}, "jailbreaks": []}, "is no JailbreakBench artifact"),
        ({"parameters": {"method": "GCG"}, "jailbreaks": []}, "holds no prompts"),
        ({"parameters": {"method": "GCG"}, "jailbreaks": JAILBREAKS[1:2]}, "holds no prompts"),
        ({"parameters": {"method": "GCG"}, "jailbreaks": [JAILBREAKS[0], {"index": 1}]}, "jailbreak 2: has no field"),
        ({"parameters": {"method": "GCG"}, "jailbreaks": [3]}, "jailbreak 1: has no field 'index'"),
        ({"parameters": {"method": "GCG"}, "jailbreaks": [{**JAILBREAKS[0], "index": "x"}]}, "index 'x' is no whole"),
        ({"parameters": {"method": "GCG"}, "jailbreaks": [{**JAILBREAKS[0], "prompt": 5}]}, "'prompt' is 5, not text"),
        ({"parameters": {"method": "GCG"}, "jailbreaks": [{**JAILBREAKS[0], "prompt": " "}]}, "the prompt is empty"),
        ({"parameters": {"method": "GCG"}, "jailbreaks": JAILBREAKS[:1] * 2}, "stands already at jailbreak 1"),
    ],
)
def test_a_fault_of_an_artifact_names_file_and_place(tmp_path: Path, content: Any, message: str) -> None:
    path = artifact(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        read_artifact(path)
    assert str(path) in str(caught.value)


def test_harmbench_behaviours_carry_their_context(tmp_path: Path) -> None:
    path = tmp_path / "harmbench_behaviors_text_all.csv"
    path.write_text(HARMBENCH)
    first, second = read_artifact(path)
    assert first == Prompt("cake_one", "bake a cake", "harmful", category="kitchen")
    assert second.prompt == "a recipe of flour\n\n---\n\nbake it, please"
    assert (second.goal, second.group) == ("bake it, please", "harmful")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("prompt,id\nx,1\n", "row 1: has no field 'Behavior'; expected Behavior, BehaviorID"),
        ("Behavior,BehaviorID,ImageFileName\nx,1,p.png\n", "behaviours on images"),
        ("Behavior,BehaviorID\n,1\n", r"row 1 \(id '1'\): the prompt is empty"),
        ("Behavior,BehaviorID\n", "holds no prompts"),
    ],
)
def test_a_fault_of_a_behaviours_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "b.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_artifact(path)


def test_what_is_no_artifact_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown kind of artifact"):
        read_artifact(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match=r"a\.json: artifact does not exist"):
        read_artifact(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"b\.csv: prompt file does not exist"):
        read_artifact(tmp_path / "b.csv")


class Hub:
    """Stands in for `datasets`: keeps what was asked and gives the rows it holds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]) -> None:
        self.rows, self.asked = rows, []
        monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=self.load_dataset))

    def load_dataset(self, *arguments: str, **options: Any) -> list[dict[str, Any]]:
        self.asked.append((arguments, options))
        return self.rows


def test_wildjailbreak_rows_are_told_apart_by_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = ("vanilla_harmful", "vanilla_benign", "adversarial_harmful", "adversarial_benign")
    rows = [{"vanilla": "bake", "adversarial": "as a baker", "completion": "", "data_type": kind} for kind in kinds]
    hub = Hub(monkeypatch, rows)
    prompts = read_artifact("hub:allenai/wildjailbreak:train")
    assert hub.asked == [
        (("allenai/wildjailbreak", "train"), {"split": "train", "delimiter": "\t", "keep_default_na": False})
    ]
    assert [one.prompt for one in prompts] == ["bake", "bake", "as a baker", "as a baker"]
    assert [one.group for one in prompts] == ["harmful", "harmless", "WildJailbreak", "harmless"]
    assert [one.goal for one in prompts] == [None, None, "bake", "bake"]
    assert prompts[2].id == "wildjailbreak-train-000002"


def test_the_evaluation_part_of_wildjailbreak_needs_no_plain_request(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, [{"adversarial": "as a baker", "label": 1, "data_type": "adversarial_harmful"}])
    (prompt,) = read_artifact("hub:allenai/wildjailbreak")
    assert hub.asked[0][0] == ("allenai/wildjailbreak", "eval")
    assert (prompt.attack, prompt.goal, prompt.label) == ("WildJailbreak", None, "harmful")


def test_jailbreakbench_behaviours_are_labelled_by_their_split(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(monkeypatch, [{"Index": 0, "Goal": "bake a cake", "Behavior": "Cake", "Category": "Kitchen"}])
    assert read_artifact("hub:jailbreakbench/jbb-behaviors") == [
        Prompt("jbb-000", "bake a cake", "harmful", category="Kitchen")
    ]
    (benign,) = read_artifact("hub:JailbreakBench/JBB-Behaviors:benign")
    assert (benign.id, benign.label) == ("jbb-benign-000", "harmless")
    assert [(one[0][1], one[1]) for one in hub.asked] == [
        ("behaviors", {"split": "harmful"}),
        ("behaviors", {"split": "benign"}),
    ]


def test_a_fault_of_a_hub_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Hub(monkeypatch, [{"adversarial": "x", "data_type": "odd"}])
    with pytest.raises(InputError, match=r"hub:allenai/wildjailbreak, row 1: data_type 'odd' is none of vanilla_harm"):
        read_artifact("hub:allenai/wildjailbreak")
    with pytest.raises(InputError, match="row 1: has no column 'Goal'"):
        read_artifact("hub:JailbreakBench/JBB-Behaviors")
    with pytest.raises(InputError, match="has no part 'test'; give one of eval, train"):
        read_artifact("hub:allenai/wildjailbreak:test")
    with pytest.raises(InputError, match="the columns of this data set are not known"):
        read_artifact("hub:owner/name")
