"""What several test files share: the toy chat model and its prompt files, made once a session."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

from pathlib import Path

import pytest

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
