"""What a prompt line and a notebook show of demur's objects: short, whole, and with all data escaped."""

from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

import demur
from demur.dynamics import Rate, wilson
from demur.models import Model
from demur.notebook import plot
from demur.provenance import Provenance
from demur.signal import Anchors, Signal
from demur.signal.sums import AnchorCount
from demur.studies import Study

EVIL = "<script>alert(1)</script>&\"'"
MADE = Provenance(EVIL, "f" * 64, {"name": EVIL, "steps": 3, EVIL: EVIL}, (4,))


class Tags(HTMLParser):
    """The tags of a piece of HTML, and whether all that need it are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def model() -> Model:
    return demur.load("demur/tiny-ar", device="cpu")


def study() -> Study:
    empty = pd.DataFrame()
    rows = [("RR", EVIL, np.nan, 0.5, 0.2, 0.8, 10), ("IRR", "harmful", 0.5, 0.1, 0.0, 0.3, 10)]
    rates = pd.DataFrame(rows, columns=["rate", "group", "threshold", "value", "low", "high", "count"])
    settings = {"model": EVIL, "sampler": dict(MADE.sampler)}
    sigma = np.full((7, 3), 0.5, dtype=np.float32)
    generations = pd.DataFrame({"id": range(7)})
    rest = dict.fromkeys(("scores", "detection", "false_positives", "controls", "correlations", "streaming"), empty)
    return Study(
        settings, generations, signals=sigma, text_signals=sigma, references=sigma[:2], rates=rates, projection=empty,
        **rest,
    )  # fmt: skip


def anchors() -> Anchors:
    phi = np.ones((3, 1, 8), dtype=np.float32)
    counts = {"harmless": AnchorCount(40, 2, 38), "harmful": AnchorCount(50, 45, 45)}
    return Anchors(phi, -phi, (4,), counts, MADE)


def shown(model: Model) -> dict[str, Any]:
    recording = demur.record(model, [EVIL], steps=2)
    signal = Signal(np.random.default_rng(0).random((60, 3)), MADE)
    return {
        "Model": model, "Recording": recording, "Anchors": anchors(), "Signal": signal, "Rate": wilson(3, 10),
        "Study": study(),
    }  # fmt: skip


def test_every_object_has_html_that_is_whole_and_escaped(model: Model) -> None:
    for name, thing in shown(model).items():
        text = thing._repr_html_()
        tags = Tags(text)
        assert not tags.open and "script" not in tags.seen and "table" in tags.seen, name
        assert len(text) < 20_000, name


def test_a_repr_is_one_short_line_without_arrays(model: Model) -> None:
    for name, thing in shown(model).items():
        if name != "Signal":  # NumPy's own
            assert "\n" not in repr(thing) and len(repr(thing)) < 250 and "array" not in repr(thing), name
    assert repr(model) == (
        f"Model('demur/tiny-ar', family='autoregressive', layers={model.layer_count}, width={model.width}, "
        f"dtype='float32', device='cpu')"
    )
    assert repr(anchors()) == "Anchors(steps=3, layers=[4], width=8, harmless=38, harmful=45)"


def test_html_tells_the_numbers() -> None:
    assert "0.30" in wilson(3, 10)._repr_html_() and "0.11 to 0.60" in wilson(3, 10)._repr_html_()
    assert "nan" in Rate(float("nan"), 0.0, 1.0, 0, 0)._repr_html_()
    text = study()._repr_html_()
    assert "<td>0.5</td><td>0.2</td><td>0.8</td><td>10</td>" in text and "IRR" not in text
    assert "38 of 40" in anchors()._repr_html_() and "45 of 50" in anchors()._repr_html_()


def test_text_of_prompts_is_not_shown(model: Model) -> None:
    assert "alert" not in demur.record(model, [EVIL], steps=2)._repr_html_()


def test_a_signal_is_drawn_where_1_is_up() -> None:
    tags = Tags(plot(np.random.default_rng(0).random((60, 3))))
    assert tags.seen.count("svg") == 1 and tags.seen.count("polyline") == 41  # 40 of 60, and the median
    drawn = plot(np.array([[1.0, 0.0]]))
    first, last = drawn.split('points="')[1].split('"')[0].split()
    assert float(first.split(",")[0]) < float(last.split(",")[0])
    assert float(first.split(",")[1]) < float(last.split(",")[1])  # SVG counts down from the top


@pytest.mark.parametrize("values", [np.empty((0, 4)), np.full((2, 3), np.nan), np.full((2, 3), 5.0), np.ones(3)])
def test_what_is_no_signal_is_not_drawn(values: np.ndarray) -> None:
    assert plot(values) == ""
    assert Tags(Signal(values)._repr_html_()).open == []


def test_a_signal_of_one_step_is_drawn() -> None:
    assert "polyline" in plot(np.array([[0.5]]))
