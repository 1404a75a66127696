"""The commands on README and the pages run as printed, in a folder in which their names stand for small models.

`MODEL`, and every name of a model on the Hub, is there a folder with one of the bundled models of the same kind, and
`prompts/`, `prompts.jsonl` and the folder `demur/toy` hold a few of the bundled prompts. What one command writes the
next ones read.
"""

import shutil
import webbrowser
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import demur
from checkpoints import qwen_gguf
from demur.bundled import bundled_model
from demur.cli import app
from demur.prompts import write_prompts
from demur.studies.demo.run import write_subsets
from test_docs_commands import PAGES, ROOT, commands

AUTOREGRESSIVE, DIFFUSION, BLOCK = "demur/tiny-ar", "demur/tiny-diffusion", "demur/tiny-block"
STANDS_FOR = {
    "Qwen/Qwen2.5-0.5B-Instruct": AUTOREGRESSIVE,
    "Qwen/Qwen2.5-7B-Instruct": AUTOREGRESSIVE,
    "GSAI-ML/LLaDA-8B-Instruct": DIFFUSION,
    "GSAI-ML/LLaDA-1.5": DIFFUSION,
    "JetLM/SDAR-1.7B-Chat": BLOCK,
}
DIFFUSION_PAGES = ("compare.md", "diffusion.md")
"""Pages on which MODEL is a diffusion model."""

ELSEWHERE = {
    "demur demo": "minutes: test_demo.py",
    "demur study paper": "minutes: test_paper.py",
    "demur harden": "minutes: test_harden.py",
    "demur study MODEL --harden": "minutes: test_hardened_study.py",
    "demur guard score runs/hard": "what `demur harden` wrote: test_harden.py",
    "demur serve": "a server runs until it is stopped: test_serve_clients.py, test_recipes.py",
    "demur guard push": "writes to the Hub: test_sharing.py",
    "demur guard show owner/name": "reads from the Hub: test_sharing.py",
    "demur guard score owner/name": "reads from the Hub: test_sharing.py",
    "demur replay": "the log of a server: test_serve_clients.py",
    "demur record Dream-org": "no bundled model has this layout: test_diffusion_families.py",
    "demur record google": "no bundled model has this layout: test_uniform_diffusion.py",
    "demur check MODEL --dtype bfloat16 --device cuda": "a GPU",
    "demur check MODEL --device-map auto": "minutes of compiling: test_execution.py",
    "demur record MODEL prompts.jsonl --out runs/mine --device-map": "minutes of compiling: test_execution.py",
    "demur check qwen2.5-coder": "minutes on a model that is not here",
    "demur check gemma": "minutes on a model that is not here",
    "demur study model.gguf": "no small GGUF file refuses: test_gguf.py records one",
    "demur check MODEL --minutes": "minutes: test_check_cli.py",
    "demur study MODEL --out runs/a --prompts prompts/ --judge": "a judge's model or server: test_judge_server.py",
    "demur study MODEL --prompts prompts/ --out runs/model --engine ray": "Ray: tests/engines/ray",
    "demur record MODEL prompts.jsonl --out runs/mine --engine ray": "Ray: tests/engines/ray/test_store.py",
    "demur record Qwen/Qwen2.5-0.5B-Instruct prompts.jsonl --out runs/qwen --engine vllm": "vLLM: tests/engines/vllm",
}
"""Beginnings of commands that are not run here, and why."""

RECORDINGS = {
    "train": "guard_train_harmless",
    "held-out": "guard_calibration_harmless",
    "harmful": "anchors_harmful",
}
"""By the name that the pages use, the set of the study."""

SIZES = {"anchors_harmless": 8, "anchors_harmful": 8, "guard_train_harmless": 24, "guard_calibration_harmless": 24}
SIZES |= {"test_harmless": 3, "test_harmful": 2, "test_attacks": 1, "control_wrapped": 1}
IN_THE_STUDY = SIZES | {"guard_calibration_harmless": 100}  # what a promise of 1% needs
IN_A_FILE = 34  # prompts: three batches


def runs_here(words: list[str]) -> bool:
    """Whether a command is not among those that other tests run."""
    return not " ".join(["demur", *words]).startswith(tuple(ELSEWHERE))


HERE = {page: [words for words in commands(page.read_text()) if runs_here(words)] for page in PAGES}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small study of the autoregressive model: what `demur demo` leaves of it."""
    out = tmp_path_factory.mktemp("demo")
    demur.study(
        AUTOREGRESSIVE, write_subsets(out / "prompts", IN_THE_STUDY), out / "tiny-ar", check=False, batch_size=64
    )
    viewed = out / "tiny-ar" / "recordings" / RECORDINGS["harmful"]
    shutil.copy(out / "tiny-ar" / "anchors.safetensors", viewed)  # a recording is viewed with the anchors beside it
    return out


def furnish(folder: Path, study: Path, model: str, here: list[list[str]]) -> None:
    """Put into a folder what the commands of a page read and do not write themselves."""
    for name, bundled in (*STANDS_FOR.items(), ("MODEL", model)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(bundled_model(bundled))
    qwen_gguf(folder / "model.gguf")
    write_subsets(folder / "prompts", SIZES)
    for name in ("demo/prompts", "demur/toy"):
        (folder / name).parent.mkdir()
        (folder / name).symlink_to(folder / "prompts")
    for name in ("prompts.jsonl", "new.jsonl"):
        write_prompts(demur.read_prompts("demur/toy/test_harmless")[:IN_A_FILE], folder / name)
    rows = pd.read_json(folder / "prompts.jsonl", lines=True)
    rows.rename(columns={"prompt": "goal"}).to_csv(folder / "advbench.csv")
    rows.assign(bad=0)[["prompt", "bad"]].to_csv(folder / "sheet.csv", encoding="cp1252")
    (folder / "runs").mkdir()
    (folder / "runs" / "demo").symlink_to(study)
    for ours, theirs in RECORDINGS.items():
        (folder / "runs" / ours).symlink_to(study / "tiny-ar" / "recordings" / theirs)
    if not any("runs/qwen" in words for words in here if words[0] == "study"):
        (folder / "runs" / "qwen").symlink_to(study / "tiny-ar")
    for file in study.glob("tiny-ar/*.safetensors"):
        shutil.copy(file, folder)


def spread(word: str) -> list[str]:
    """What a shell makes of a word: the paths it stands for, or the word itself."""
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


@pytest.mark.parametrize("page", [page for page in PAGES if HERE[page]], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_run(page: Path, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    furnish(tmp_path, study, DIFFUSION if page.name in DIFFUSION_PAGES else AUTOREGRESSIVE, HERE[page])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(webbrowser, "open", lambda *_: True)
    for words in HERE[page]:
        result = CliRunner().invoke(app, [path for word in words for path in spread(word)])
        assert result.exit_code == 0, (words, result.output, result.exception)


def test_every_command_that_is_left_out_is_on_a_page() -> None:
    lines = [" ".join(["demur", *words]) for page in PAGES for words in commands(page.read_text())]
    assert [start for start in ELSEWHERE if not any(line.startswith(start) for line in lines)] == []
