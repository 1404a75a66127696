"""A skip needs a listed reason: without one a run under CI=true fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from skips import ALLOWED, unlisted

HERE = Path(__file__).parent


def test_a_listed_reason_is_allowed_and_any_other_is_named() -> None:
    assert ALLOWED
    found = unlisted({"a": "no Chromium on this machine: told", "b": "no time", "c": "there is no Chromium"})
    assert found == ["b: no time", "c: there is no Chromium"]


@pytest.mark.parametrize(
    ("reason", "ci", "status"), [("no time", "true", 1), ("no time", "", 0), ("no Chromium on this machine", "true", 0)]
)
def test_a_run_fails_only_under_ci_and_only_for_an_unlisted_reason(
    tmp_path: Path, reason: str, ci: str, status: int
) -> None:
    for name in ("conftest.py", "long.py", "skips.py"):
        (tmp_path / name).write_text((HERE / name).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "test_one.py").write_text(
        f"import pytest\ndef test_run(): pass\n@pytest.mark.skip(reason={reason!r})\ndef test_skipped(): pass\n",
        encoding="utf-8",
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(tmp_path),
        str(tmp_path),
    ]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "CI": ci}, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    assert ("skipped without a listed reason" in done.stdout) == bool(status)


def test_shared_fixtures_import_nothing_heavy() -> None:
    code = "import sys; import conftest; print(sorted({'torch', 'transformers', 'pandas', 'demur'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
