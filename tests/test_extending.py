"""The page on extending demur: its code runs in order, and keeps what its words promise."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import demur
from demur.attacks import ATTACKS
from demur.guards import GUARDS
from demur.judges import JUDGES
from demur.models import FAMILIES
from demur.models.loading import BUILDERS
from demur.samplers import SAMPLERS
from demur.studies import STUDY_TABLES

PAGE = Path(__file__).parents[1] / "docs" / "extending.md"


def blocks(page: Path) -> list[tuple[int, str]]:
    """Pairs of the line at which a block of Python begins, and its code."""
    text = page.read_text()
    found = re.finditer(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [(text[: one.start(1)].count("\n"), one[1]) for one in found]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The names that the page's code leaves behind, run in an empty folder."""
    names: dict[str, Any] = {"__name__": "page"}
    tables: list[dict[str, Any]] = [BUILDERS, ATTACKS, JUDGES, SAMPLERS, GUARDS, FAMILIES, STUDY_TABLES]
    known = [dict(table) for table in tables]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("page"))
        for line, code in blocks(PAGE):
            exec(compile("\n" * line + code, str(PAGE), "exec"), names)
        yield names
    for table, before in zip(tables, known, strict=True):
        table.clear()
        table.update(before)


def test_the_page_holds_python_only_in_blocks_that_are_run(page: dict[str, Any]) -> None:
    assert PAGE.read_text().count("```") == 2 * len(blocks(PAGE)) > 8


def test_a_row_of_the_new_sampler_does_not_depend_on_its_batch(page: dict[str, Any]) -> None:
    together = page["recording"]
    for row in (0, 1):
        alone = demur.record(page["model"], page["prompts"][row : row + 1], page["sampler"])
        assert np.array_equal(alone.steps_tokens(0).predicted, together.steps_tokens(row).predicted)
        np.testing.assert_allclose(alone.phi[0], together.phi[row], atol=1e-4)


def test_steps_of_the_new_sampler_are_not_changed_by_later_ones(page: dict[str, Any]) -> None:
    ids = page["torch"].tensor([[5, 6]])
    masked = [(step.committed == 49).sum().item() for step in list(page["sampler"].steps(page["model"], ids))]
    assert masked == [15, 14, 13, 11, 8, 6, 3, 0]


def test_the_new_sampler_keeps_forced_tokens(page: dict[str, Any]) -> None:
    ids = page["torch"].tensor([[5, 6]])
    for step in page["sampler"].steps(page["model"], ids, prefill=[[21, 22]]):
        assert step.committed[0, :2].tolist() == step.predicted[0, :2].tolist() == [21, 22]


def test_recordings_of_another_sampler_are_refused(page: dict[str, Any]) -> None:
    usual = demur.record(page["model"], page["prompts"], steps=8)
    with pytest.raises(demur.ProvenanceError, match="sampler name"):
        demur.Anchors.fit(usual, page["recording"])


def test_a_checkpoint_with_a_tensor_left_over_is_refused_by_name(page: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((page["folder"].resolve() / "config.json").read_text())
    weights = {name.replace("model.", "backbone."): one for name, one in page["weights"].items()}
    page["save_file"]({**weights, "extra": page["torch"].zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(demur.InputError, match="unexpected extra"):
        demur.load(tmp_path, device="cpu")
