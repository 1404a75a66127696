"""The scripts and manifests on the page about scale parse, and name options that the commands have."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from demur.cli import app

PAGE = (Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def commands() -> list[list[str]]:
    """Every `demur` command of the scripts and manifests, without what a shell does to it."""
    scripts = [script.replace("\\\n", " ") for script in blocks("bash")]
    manifests = [yaml.safe_load(block) for block in blocks("yaml")]
    texts = [*scripts, *(text for one in manifests for text in _texts(one))]
    lines = [line for text in texts for line in text.splitlines()]
    found = [re.search(r"\bdemur (check|compare|merge|record|study)\b[^\"#]*", line) for line in lines]
    return [shlex.split(one[0].replace("$((", "").replace("))", "")) for one in found if one]


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for one in value.values() for text in _texts(one)]
    if isinstance(value, list):
        return [text for one in value for text in _texts(one)]
    return [value] if isinstance(value, str) else []


def test_every_command_of_the_page_names_options_that_there_are() -> None:
    group: Any = typer.main.get_command(app)
    assert len(commands()) > 10
    for _, name, *words in commands():
        known = {option for parameter in group.commands[name].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, (name, words)


@pytest.mark.parametrize("script", blocks("bash"))
def test_every_script_is_one_that_a_shell_reads(script: str) -> None:
    shell = shutil.which("bash") or "sh"
    done = subprocess.run([shell, "-n"], input=script, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_the_manifests_are_of_kinds_that_kubernetes_and_kuberay_have() -> None:
    job, ray = map(yaml.safe_load, blocks("yaml"))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["spec"]["completionMode"] == "Indexed" and job["spec"]["completions"] == 16
    assert (ray["apiVersion"], ray["kind"]) == ("ray.io/v1", "RayJob")
    for group in [ray["spec"]["rayClusterSpec"]["headGroupSpec"], *ray["spec"]["rayClusterSpec"]["workerGroupSpecs"]]:
        pod = group["template"]["spec"]
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
