"""The tests of the Ray engine run where Ray is installed: `make test-ray`. Elsewhere none is collected.

Each module has PROMPTS and SETTINGS, and is given the model and what one process records of them.
"""

from importlib.util import find_spec

import pytest

import demur

collect_ignore_glob = [] if find_spec("ray") else ["test_*.py"]


@pytest.fixture(scope="module")
def model() -> demur.Model:
    return demur.load("demur/tiny-ar", device="cpu")


@pytest.fixture(scope="module")
def whole(
    request: pytest.FixtureRequest, model: demur.Model, tmp_path_factory: pytest.TempPathFactory
) -> demur.Recording:
    out = tmp_path_factory.mktemp("whole") / "r"
    return demur.record(model, request.module.PROMPTS, **request.module.SETTINGS, out=out)
