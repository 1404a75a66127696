"""What several test files share, made once a session: the toy chat model, its prompt files, a large page."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

from pathlib import Path

import pytest

import made_up
import toy
from demur.models import Model, load
from demur.studies import PROMPT_SETS


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.save(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def toy_model(toy_folder: Path) -> Model:
    return load(toy_folder, device="cpu")


@pytest.fixture(scope="session")
def toy_prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.write_prompts(tmp_path_factory.mktemp("prompts"), list(PROMPT_SETS))


@pytest.fixture(scope="session")
def large_viewer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of 2,000 generations of 32 steps and 128 positions, with text; half of what is open always changes."""
    from demur.report import write_viewer

    folder = tmp_path_factory.mktemp("large")
    words = ["<end>", "<mask>", *(f"word{n}" for n in range(50_000))]
    made_up.make_study(folder, words, count=1000, steps=32, response=128)
    return write_viewer(folder, folder / "large.html", show_text=True)
