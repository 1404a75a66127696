"""The Python on README and the pages runs as printed, page by page, in a folder in which `demur demo` was run.

The folder holds smaller studies than the demonstration's, made in seconds.
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
NEEDS = {
    "a guard model from the Hub",
    "a judge's server, or a judge model from the Hub",
    "Ray",
    "a model from the Hub",
    "a server of demur",
    "a server of demur and another package",
    "torchrun and a model from the Hub",
    "the files of JailbreakBench and HarmBench, and the Hub",
}
"""What a block may say that it needs, in its first line: such a block is compiled and not run."""
ELSEWHERE = {"extending.md", "README.md"}  # run by test_extending.py and below, which also check what comes out
SIZES = {"anchors_harmless": 12, "anchors_harmful": 12, "guard_train_harmless": 40, "guard_calibration_harmless": 100}
SIZES |= {"test_harmless": 3, "test_harmful": 2, "test_attacks": 1, "control_wrapped": 1}
FEW = {"anchors_harmless": 8, "anchors_harmful": 10, "guard_train_harmless": 0, "guard_calibration_harmless": 24}
FEW |= {"test_harmless": 0, "test_harmful": 0, "test_attacks": 1, "control_wrapped": 0}


def blocks(page: Path) -> list[tuple[int, str]]:
    """Pairs of the line at which a block of Python begins, and its code."""
    text = page.read_text(encoding="utf-8")
    found = re.finditer(r"^```python[^\n]*\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(text[: one.start(1)].count("\n"), one[1]) for one in found]


def need(code: str) -> str | None:
    """What a block says that it needs."""
    first = code.splitlines()[0]
    return first.removeprefix("# needs ") if first.startswith("# needs ") else None


ALL = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))) if blocks(page)]
PAGES = [page for page in ALL if page.name not in ELSEWHERE]


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `demur demo` leaves and the pages read: a study of tiny-ar; recordings, anchors and guards of a second."""
    import demur
    from demur.guards import states_of
    from demur.studies import run_study
    from demur.studies.demo.run import write_subsets
    from demur.studies.study.directions import LOOKS
    from demur.studies.study.prompt_sets import first_of_each, read_sets

    out = tmp_path_factory.mktemp("shown")
    prompts = write_subsets(out / "prompts", SIZES)
    run_study(demur.load("demur/tiny-ar"), prompts, out / "tiny-ar", check=False, batch_size=64, progress=False)
    model, folder = demur.load("demur/tiny-diffusion"), out / "tiny-diffusion"
    recordings = {
        name: demur.record(model, first_of_each(rows, FEW[name]), out=folder / "recordings" / name, batch_size=64)
        for name, rows in read_sets(prompts, None).items()
        if FEW[name]
    }
    demur.Anchors.fit(recordings["anchors_harmless"], recordings["anchors_harmful"]).save(
        folder / "anchors.safetensors"
    )
    good, bad, apart = (
        states_of(recordings[name], LOOKS)
        for name in ("anchors_harmless", "anchors_harmful", "guard_calibration_harmless")
    )
    looks = demur.DirectionGuard(places=LOOKS).fit(good, harmful=bad, calibration=apart)
    stream = demur.StreamingGuard(0.05, side="high").fit(looks.place_errors(good))
    looks.save(folder / "direction_looks.safetensors")
    stream.calibrate(looks.place_errors(apart)).save(folder / "streaming_direction_guard.safetensors")
    return out


@pytest.mark.filterwarnings("ignore:.*signals to calibrate", "ignore:.*are too few for the quantile")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from demur.attacks import ATTACKS

    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "demo").symlink_to(shown)
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    known = dict(ATTACKS)
    names: dict[str, Any] = {"__name__": "page"}
    try:
        for line, code in blocks(page):
            compiled = compile("\n" * line + code, str(page), "exec")
            if need(code) is None:
                exec(compiled, names)
    finally:
        ATTACKS.clear()
        ATTACKS.update(known)


def test_readme_prints_what_its_code_prints(capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    [(_, code)] = blocks(ROOT / "README.md")
    printed = text.split(code, 1)[1].split("```\n", 3)[2].splitlines()
    exec(code, {})
    lines = capsys.readouterr().out.splitlines()
    assert [line[:13] for line in lines] == [line[:13] for line in printed]  # step, signal and how the answer begins


def test_what_a_block_needs_is_among_the_listed_reasons() -> None:
    needs = {need(code) for page in ALL for _, code in blocks(page)} - {None}
    assert needs == NEEDS


def test_every_json_block_is_json() -> None:
    for page in (ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")):
        for block in re.findall(r"^```json\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                json.loads(line)


def test_links_between_the_pages_and_files_of_the_repository_lead_somewhere() -> None:
    broken = []
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("**/*.md")):
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)\s]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append((page.name, target))
    assert not broken
