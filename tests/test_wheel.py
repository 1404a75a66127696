"""The wheel holds every file of the package: code, bundled models, prompts, templates and data."""

import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
TEMPORARY = {"__pycache__"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return ZipFile(built)


def test_every_file_of_the_package_is_in_the_wheel(wheel: ZipFile) -> None:
    package = ROOT / "src" / "demur"
    files = {file.relative_to(package.parent).as_posix() for file in package.rglob("*") if file.is_file()}
    expected = {name for name in files if not TEMPORARY & set(name.split("/"))}
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == expected
    assert {"demur/py.typed", "demur/judges/prompt.txt"} <= packed
    for name in ("tiny-ar", "tiny-diffusion"):
        assert f"demur/bundled/{name}/model.safetensors" in packed


def test_extras_and_dependencies_are_used_by_the_package(wheel: ZipFile) -> None:
    (metadata,) = [name for name in wheel.namelist() if name.endswith("METADATA")]
    lines = wheel.read(metadata).decode().splitlines()
    extras = {line.removeprefix("Provides-Extra: ") for line in lines if line.startswith("Provides-Extra: ")}
    assert extras == {"dev", "docs", "gguf", "hub", "peft", "ray", "serve", "vllm"}
    code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src" / "demur").rglob("*.py"))
    needed = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    names = {re.split(r"[^\w.-]", line)[0] for line in needed if "extra ==" not in line}
    modules = {"sklearn" if name == "scikit-learn" else name.replace("-", "_") for name in names}
    assert {name for name in modules if not re.search(rf"\b(import|from) {name}\b", code)} == set()
