"""The front door: what `import demur` offers, and what its main functions take."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import demur
from demur.errors import InputError
from demur.models import Model

PROMPTS = ["Tell me how to bake bread.", "How do I plant tulips?"]


@pytest.fixture(scope="module")
def tiny() -> Model:
    return demur.load("demur/tiny-ar", device="cpu")


@pytest.mark.parametrize("name", demur.__all__)
def test_every_public_name_loads(name: str) -> None:
    assert getattr(demur, name) is not None
    assert name in dir(demur)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        demur.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_importing_demur_imports_nothing_heavy() -> None:
    code = (
        "import sys, demur; print(sorted({'torch', 'numpy', 'pandas', 'transformers', 'sklearn'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_network_in_memory_is_loaded_as_it_is(tiny: Model) -> None:
    made = demur.load(tiny.network, tokenizer=tiny.tokenizer)
    assert made.network is tiny.network and made.fingerprint == tiny.fingerprint
    assert demur.load(tiny.network, tokenizer=tiny.tokenizer, system=None).fingerprint != tiny.fingerprint


@pytest.mark.parametrize(
    "option",
    [{"revision": "main"}, {"device": "cpu"}, {"dtype": "float32"}, {"gguf_file": "a"}, {"trust_remote_code": True}],
)
def test_options_of_loading_are_refused_for_a_network_in_memory(tiny: Model, option: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"^{next(iter(option))}: say how to load, and the network is in memory"):
        demur.load(tiny.network, tokenizer=tiny.tokenizer, **option)


def test_a_tokenizer_is_refused_beside_a_name_and_a_model(tiny: Model) -> None:
    with pytest.raises(InputError, match="demur/tiny-ar: brings its own tokenizer"):
        demur.load("demur/tiny-ar", tokenizer=tiny.tokenizer)
    with pytest.raises(InputError, match="demur/tiny-ar: is a Model"):
        demur.record(tiny, PROMPTS, tokenizer=tiny.tokenizer, steps=2)


def test_what_is_no_network_of_transformers_is_refused(tiny: Model) -> None:
    with pytest.raises(InputError, match="is a Linear without a config"):
        demur.load(torch.nn.Linear(2, 2), tokenizer=tiny.tokenizer)
    for wrong in (torch.nn.Linear(2, 2), 3, None):
        with pytest.raises(InputError, match=rf"model is a {type(wrong).__name__}; give a name"):
            demur.record(wrong, PROMPTS, tokenizer=tiny.tokenizer)  # type: ignore[arg-type]


def test_record_takes_a_name_a_model_and_a_network_alike(tiny: Model) -> None:
    of_model = demur.record(tiny, PROMPTS, steps=3)
    of_name = demur.record("demur/tiny-ar", PROMPTS, steps=3)
    of_network = demur.record(tiny.network, PROMPTS, tokenizer=tiny.tokenizer, steps=3)
    for one in (of_name, of_network):
        assert one.provenance.fingerprint == of_model.provenance.fingerprint
        assert np.array_equal(one.phi, of_model.phi)


def test_only_prompts_of_token_ids_do_without_a_tokenizer(tiny: Model) -> None:
    made = demur.record(tiny.network, [{"id": "a", "token_ids": [5, 6]}], steps=2)
    assert made.phi.shape[:2] == (1, 2)
    with pytest.raises(InputError, match="tokenizer too, as tokenizer=…"):
        demur.record(tiny.network, PROMPTS, steps=2)


def test_study_and_compare_do_what_the_commands_do(tiny: Model, tmp_path: Path) -> None:
    options: dict[str, Any] = {"steps": 4, "limit": 20, "layers": ("last",), "check": False}
    study = demur.study(tiny.network, "demur/toy", tmp_path / "a", tokenizer=tiny.tokenizer, **options)
    assert study.path == tmp_path / "a" and (tmp_path / "a" / "study.json").is_file()
    assert (tmp_path / "a" / "report.html").is_file() and any((tmp_path / "a" / "figures").iterdir())
    found = demur.compare(tmp_path / "a", tmp_path / "a", out=tmp_path / "both")
    assert (tmp_path / "both" / "comparison.json").is_file() and (tmp_path / "both" / "comparison.html").is_file()
    differences = found.table[found.table["baseline"].notna()]
    assert len(differences) and (differences["value"] == 0).all()
    assert len(demur.Recording(tmp_path / "a" / "recordings" / "test_harmless")) == 20
    with pytest.raises(InputError, match="1 run to compare"):
        demur.compare(tmp_path / "a")
