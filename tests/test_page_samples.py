"""Pages of large runs hold a fair sample, say so, and stay small."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

import made_up
from demur.report import write_viewer
from demur.report.parts import figures
from demur.report.parts.sample import sample_order, sampled
from demur.report.viewer import page, played

WORDS = ["<end>", "<mask>", *(f"word{n}" for n in range(60))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    made_up.make_study(folder, WORDS, count=60, steps=8, response=16)
    return folder


def test_any_beginning_of_the_order_holds_equally_many_of_each_group() -> None:
    groups = ["a"] * 50 + ["b"] * 5 + [None] * 20
    order = sample_order(groups)
    assert sorted(order.tolist()) == list(range(75))
    for most in (3, 9, 15):
        counts = pd.Series(groups, dtype=object).iloc[sampled(groups, most)].value_counts(dropna=False)
        assert set(counts) == {most // 3}
    counts = pd.Series(groups, dtype=object).iloc[sampled(groups, 45)].value_counts(dropna=False)
    assert (counts["a"], counts["b"]) == (20, 5)
    np.testing.assert_array_equal(sampled(groups, 75), np.arange(75))
    np.testing.assert_array_equal(sample_order(groups), order)


@pytest.mark.parametrize("show_text", [False, True])
def test_a_viewer_that_would_be_too_large_holds_a_sample_and_says_so(
    run: Path, tmp_path: Path, show_text: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_viewer(run, tmp_path / "whole.html", show_text=show_text)
    assert "a sample with equally many" not in whole.read_text()
    monkeypatch.setattr(page, "MOST_BYTES", most := whole.stat().st_size - 9_000)
    small = write_viewer(run, tmp_path / "small.html", show_text=show_text).read_text()
    assert len(small.encode()) <= most
    assert " of 120 generations: a sample with equally many of each prompt set and group" in small


def test_no_more_generations_are_read_than_a_page_can_hold(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = played.read_played(run)
    monkeypatch.setattr(played, "MOST", 30)
    part = played.read_played(run)
    assert (len(part.generations), len(part.tracks), part.total) == (30, 30, 120)
    ids = whole.generations["id"].tolist()
    for row, identity, track in zip(range(30), part.generations["id"], part.tracks, strict=True):
        place = ids.index(identity)
        np.testing.assert_array_equal(track.tokens, whole.tracks[place].tokens)
        np.testing.assert_array_equal(part.signals[row], whole.signals[place])


def test_shares_above_thresholds_are_counted_without_a_table_of_all_pairs() -> None:
    random = np.random.default_rng(0)
    scores, thresholds = random.integers(0, 9, 200).astype(float), np.array([np.inf, 8.0, 3.5, 3.0, 0.0, -np.inf])
    wanted = (scores[:, None] > thresholds).mean(axis=0)
    np.testing.assert_allclose(figures.share_above(scores, thresholds), wanted)
    assert np.isnan(figures.share_above(np.zeros(0), thresholds)).all()


def test_a_figure_of_many_points_draws_a_sample_and_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    scatter = Axes.scatter
    monkeypatch.setattr(Axes, "scatter", lambda self, x, y, **more: drawn.append(x) or scatter(self, x, y, **more))
    monkeypatch.setattr(figures, "MOST_POINTS", 40)
    monkeypatch.setattr(figures, "style_of", lambda study, kind: SimpleNamespace(colour="#000000", marker="o"))
    points = pd.DataFrame({"kind": ["harmless"] * 100 + ["refused"] * 10, "x": 0.0, "y": 1.0})
    figure = figures.projection_figure(SimpleNamespace(projection=points))  # type: ignore[arg-type]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(map(len, drawn)) == [10, 30]
    assert any("n = 100, 30 drawn" in label for label in labels) and any(label.endswith("n = 10") for label in labels)
