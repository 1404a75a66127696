"""Plugins: names find what others registered, and samplers of others say all they were made with."""

import copy
import pickle
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

import demur
from demur import plugins
from demur.attacks import ATTACKS, attack_prompts, attacked
from demur.errors import InputError
from demur.judges import JUDGES, CompliesJudge
from demur.plugins import Registry, load_plugin
from demur.prompts import Prompt
from demur.samplers import SAMPLERS, Autoregressive, MaskedDiffusion, UniformDiffusion
from demur.studies import judge_of

MODULE = """
from demur.attacks import ATTACKS, attacked
from demur.judges import JUDGES, CompliesJudge

@ATTACKS.register("shout")
def shout(prompt):
    return attacked(prompt, "shout", text=prompt.prompt.upper())

@JUDGES.register("brief")
def brief(told):
    return CompliesJudge(int(told or 3))
"""


@pytest.fixture(autouse=True)
def only_for_this_test() -> Any:
    tables: list[dict[str, Any]] = [ATTACKS, JUDGES, SAMPLERS]
    before = [dict(table) for table in tables]
    plugins.load_installed.cache_clear()
    yield
    plugins.load_installed.cache_clear()
    for table, known in zip(tables, before, strict=True):
        table.clear()
        table.update(known)


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, **modules: str) -> None:
    """Make modules importable, and name them as entry points."""
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(folder)
    found = [EntryPoint(name, name, plugins.GROUP) for name in modules]
    monkeypatch.setattr(plugins, "entry_points", lambda group: found if group == plugins.GROUP else [])


def test_an_installed_plugin_is_found_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, demur_installed=MODULE)
    assert "shout" not in ATTACKS
    assert attack_prompts("shout", [Prompt("a", "tea")])[0].prompt == "TEA"
    assert judge_of("brief:7", demur.load) == CompliesJudge(7) and judge_of("brief", demur.load) == CompliesJudge(3)
    assert "shout" in ATTACKS.names()


def test_a_broken_plugin_is_named_and_the_others_are_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, demur_broken="1 / 0", demur_sound=MODULE)
    with pytest.warns(UserWarning, match=r"demur_broken .* is left out: ZeroDivisionError"):
        assert ATTACKS.find("shout")


def test_a_plugin_is_loaded_by_file_or_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(MODULE)
    load_plugin(str(tmp_path / "own.py"))
    assert "shout" in ATTACKS
    load_plugin(str(tmp_path / "own.py"))  # a second time changes nothing
    for wrong in (str(tmp_path / "none.py"), "no_such_module_at_all"):
        with pytest.raises(InputError, match=r"^plugin .*: cannot be imported: (FileNotFound|ModuleNotFound)Error"):
            load_plugin(wrong)


def test_unknown_names_are_refused_with_those_that_are_known() -> None:
    with pytest.raises(InputError, match="attack 'none' is unknown; give one of refusal-suppression, "):
        attack_prompts("none", [])
    with pytest.raises(InputError, match="sampler 'none' is unknown; give one of Autoregressive, "):
        SAMPLERS.find("none")
    with pytest.raises(InputError, match="judge 'none' is unknown; give complies"):
        judge_of("none", demur.load)


def test_a_name_belongs_to_one_thing() -> None:
    table: Registry[Any] = Registry("attack")

    @table.register("one")
    def one() -> None: ...

    table.register("one")(one)

    def other() -> None: ...

    with pytest.raises(InputError, match=r"attack 'one' is there already, as .*one; give .*other another name"):
        table.register("one")(other)


def test_an_attack_may_be_a_function() -> None:
    def polite(prompt: Prompt) -> Prompt:
        return attacked(prompt, "polite", text=f"Please: {prompt.prompt}")

    assert attack_prompts(polite, [Prompt("a", "tea")])[0].attack == "polite"


class Nucleus(Autoregressive):
    """With a parameter of its own, and the others passed on."""

    def __init__(self, steps: int = 32, *, nucleus: float = 0.9, kept: Any = None, **others: Any) -> None:
        super().__init__(steps, **others)
        self._nucleus = nucleus


def test_arguments_of_a_subclass_are_kept() -> None:
    assert Nucleus(4, nucleus=0.5, temperature=1.0).describe() == {
        "name": "Nucleus",
        **Autoregressive(4, temperature=1.0).arguments,
        "nucleus": 0.5,
        "kept": None,
    }
    assert Nucleus(4).describe() != Nucleus(4, nucleus=0.5).describe()
    assert Nucleus(4).describe() == Nucleus(steps=4).describe()


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_describes_itself_alike(again: Any) -> None:
    assert again(Nucleus(4, nucleus=0.5)).describe() == Nucleus(4, nucleus=0.5).describe()


def test_recordings_of_two_settings_never_mix(tmp_path: Path) -> None:
    model = demur.load("demur/tiny-ar", device="cpu")
    made = demur.record(model, ["tea"], Nucleus(2, nucleus=0.5), out=tmp_path / "r")
    assert made.provenance.sampler["nucleus"] == 0.5
    with pytest.raises(InputError, match="sampler"):
        demur.record(model, ["tea"], Nucleus(2, nucleus=0.7), out=tmp_path / "r")


def test_an_argument_that_is_no_plain_value_is_refused() -> None:
    with pytest.raises(InputError, match=r"Nucleus: its argument kept is a function, .* name it in `arguments`"):
        Nucleus(4, kept=lambda: 1).describe()


@pytest.mark.parametrize("sampler", [Autoregressive, MaskedDiffusion, UniformDiffusion])
def test_demurs_own_samplers_name_all_their_arguments(sampler: Any) -> None:
    made = sampler()
    assert made.describe() == {"name": sampler.__name__, **made.arguments}
