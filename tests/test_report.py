"""The report: figures that name what they show, and one HTML file that nothing written in a prompt can break."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text

from demur import report
from demur.report.parts import embed as embedding
from demur.report.parts.groups import drawn_words
from demur.report.parts.labels import visible
from demur.report.parts.trajectories import bands_figure
from demur.studies import Study
from demur.studies.study.detection import Detector
from demur.studies.study.tables.controls import control_table
from demur.studies.study.tables.correlations import correlation_table
from demur.studies.study.tables.detection import detection_table
from demur.studies.study.tables.false_positives import false_positive_table
from demur.studies.study.tables.projection import projection_table
from demur.studies.study.tables.rates import rate_table
from demur.studies.study.tables.streaming import streaming_table

ATTACKS = {"PAIR": 87, "GCG": 100, "JBC": 100, "random_search": 100}
REFUSED_SHARE = {"harmless": 0.02, "harmful": 0.6, "PAIR": 0.55, "GCG": 0.5, "JBC": 0.2, "random_search": 0.08}
T = 32


def settings(limit: float) -> dict:
    return {
        "model": "Example/Example-0.5B-Instruct",
        "fingerprint": "0f3a" * 16,
        "sampler": {"name": "Autoregressive", "steps": T, "temperature": 0.0, "seed": 0, "pooling": "paper"},
        "layers": [24],
        "chat_format": {"system": "You are a helpful assistant", "template": "chatml"},
        "versions": {"demur": "0.1.0", "torch": "2.8.0", "transformers": "5.23.0"},
        "counts": {"anchors_harmless": 400, "anchors_harmful": 400, "test_harmless": 200, "test_harmful": 100},
        "anchors": {
            "harmless": {"seen": 400, "refused": 2, "kept": 398},
            "harmful": {"seen": 400, "refused": 251, "kept": 251},
        },
        "guard": {
            "quantile": 0.99,
            "threshold": limit,
            "n_calibration": 200,
            "false_positive_low": 0.0012,
            "false_positive_high": 0.0276,
        },
        "tau": 0.1,
        "compliance": 0.5,
        "limit": None,
        "seed": 0,
        "seconds": 5321.4,
    }


def make_study(harmless: int = 200, harmful: int = 100, attacks: dict[str, int] | None = None) -> Study:
    """A study as `run_study` would leave it: signals near 1 for harmless, falling for refused generations."""
    attacks = ATTACKS if attacks is None else attacks
    rng = np.random.default_rng(0)
    sets = [("test_harmless", "harmless", harmless), ("test_harmful", "harmful", harmful)]
    sets += [("test_attacks", name, n) for name, n in attacks.items()]
    rows = [(s, f"{g}-{i:03d}", g, i < round(n * REFUSED_SHARE.get(g, 0.5))) for s, g, n in sets for i in range(n)]
    table = pd.DataFrame(rows, columns=["set", "id", "group", "refused"])
    low = np.where(table["group"] == "harmless", 0.0, np.where(table["refused"], 1.0, rng.beta(1.5, 1.5, len(table))))
    start = rng.uniform(-1, 6, (len(table), 1))
    drop = (4.2 * low[:, None] + rng.normal(0, 0.8, (len(table), 1))) / (1 + np.exp((start - np.arange(T)) / 1.5))
    signals = 1 / (1 + np.exp(-(2 - drop + np.cumsum(rng.normal(0, 0.12, (len(table), T)), 1))))
    text = 1.0 - (table["refused"].to_numpy()[:, None] & (np.arange(T) >= 6))
    error = ((signals - signals[table["group"] == "harmless"].mean(0)) ** 2).sum(1) if harmless else signals[:, 0] * 0
    limit = float(np.quantile(error[:harmless], 0.985)) if harmless else 1.0
    means = 1 - signals.mean(1)
    detectors = [Detector("SRI Guard", error, limit), Detector("mean signal", means, float(np.median(means)))]
    detectors.append(Detector("SRI Guard on the text signal", 1 - text.mean(1), 0.5))
    table = table.assign(label="x", attack="", goal="GOAL", category="", prompt="SECRET PROMPT", text="SECRET TEXT")
    table = table.assign(
        tokens=T,
        prompt_tokens=rng.integers(5, 20, len(table)),
        answer_tokens=T,
        seconds=1.0,
        final_signal=signals[:, -1],
    )
    table = table.assign(mean_signal=signals.mean(1), guard_error=error, flagged=error > limit)
    return Study(
        settings=settings(limit),
        generations=table,
        scores=pd.DataFrame({detector.name: detector.scores for detector in detectors}),
        signals=signals.astype(np.float32),
        text_signals=text.astype(np.float32),
        references=np.stack([np.linspace(0.9, 0.88, T), np.linspace(0.6, 0.06, T)]).astype(np.float32),
        rates=rate_table(table, signals),
        detection=detection_table(detectors, table),
        false_positives=false_positive_table(detectors, table),
        controls=control_table(detectors, table),
        correlations=correlation_table(detectors, table),
        streaming=streaming_table({"Streaming Guard": (0.05, np.where(error > limit, 3, 0))}, table, T),
        projection=projection_table(signals, table),
    )


class Page(HTMLParser):
    """What the tests ask of a page: its elements with their attributes, its words, and the cells of its results."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.words: list[str] = []
        self.open: list[tuple[str, str | None]] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append((tag, dict(attrs).get("class")))
        if tag == "td":
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        tags = [tag for tag, _ in self.open]
        if "style" not in tags:
            self.words.append(data)
        if "td" in tags and ("table", "numbers") in self.open:
            self.cells[-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def study() -> Study:
    return make_study()


@pytest.fixture(scope="module")
def page(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(report.write_report(study, tmp_path_factory.mktemp("report") / "report.html"))


def texts(figure: Figure) -> str:
    return "\n".join(artist.get_text() for artist in figure.findobj(Text))


def test_the_signal_figure_says_which_end_complies_and_draws_signal_text_and_both_references(study: Study) -> None:
    figure = report.signal_figure(study, 205)
    (axes,) = figure.axes
    assert "1 = complies, 0 = refuses" in axes.get_ylabel()
    drawn = [line.get_ydata() for line in axes.lines]
    for expected in (study.signals[205], study.text_signals[205], *study.references):
        assert any(len(y) == T and np.array_equal(y, expected) for y in drawn)
    for word in (
        "harmful-005 (plain harmful)",
        "this signal",
        "text level",
        "harmless,\nanswered",
        "harmful,\nrefused",
    ):
        assert word in texts(figure)


def test_labels_at_the_end_of_a_signal_do_not_overlap_where_lines_end_together(study: Study) -> None:
    same = replace(study, references=np.ones((2, T)), signals=np.ones_like(study.signals), text_signals=study.signals)
    figure = report.signal_figure(same, 0)
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent() for text in figure.axes[0].texts), key=lambda box: box.y0)
    assert len(boxes) == 4
    assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))


def test_the_bands_figure_has_a_panel_with_its_count_for_every_group(study: Study) -> None:
    figure = report.bands_figure(study)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.axison]
    expected = ["harmless\nn = 200", "harmful, refused\nn = 60", "harmful, complied\nn = 40"]
    assert titles == expected + [f"{name}\nn = {n}" for name, n in ATTACKS.items()]
    assert "1 = complies, 0 = refuses" in texts(figure)
    harmless = figure.axes[0].lines[-1].get_ydata()
    np.testing.assert_allclose(harmless, study.signals[:200].mean(axis=0), rtol=1e-6)


def test_the_projection_figure_counts_every_kind(study: Study) -> None:
    words = texts(report.projection_figure(study))
    for kind, count in study.projection["kind"].value_counts().items():
        assert f"{kind}, n = {count}" in words


def test_the_roc_figure_takes_its_auroc_from_the_table_and_marks_the_threshold(study: Study) -> None:
    detection = study.detection.assign(auroc=0.1234, auroc_low=0.1, auroc_high=0.2)
    figure = report.roc_figure(replace(study, detection=detection))
    assert "PAIR, n = 87: 0.123 (0.100–0.200)" in texts(figure)
    curves = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
    points = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert len(curves) == len(points) == len(ATTACKS) + 1
    caught = study.detection.query("detector == 'SRI Guard' and group == 'PAIR' and subset == 'all'")["tpr"].item()
    assert points[0].get_ydata()[0] == pytest.approx(caught)


def test_the_area_under_a_drawn_roc_curve_is_the_auroc_of_the_table(study: Study) -> None:
    curve = report.roc_figure(study).axes[0].lines[1]
    expected = study.detection.query("detector == 'SRI Guard' and group == 'PAIR' and subset == 'all'")["auroc"].item()
    assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(expected)


def test_the_irr_figure_has_a_bar_for_every_group_and_threshold_and_names_counts(study: Study) -> None:
    figure = report.irr_figure(study)
    (axes,) = figure.axes
    assert len(axes.patches) == 3 * 6
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels[:3] == ["harmless\nn = 200", "plain harmful\nn = 100", "PAIR\nn = 87"]
    assert "λr = 0.3" in texts(figure)


def test_figures_of_the_study_are_saved_as_png_and_svg_and_the_same_twice(tmp_path: Path) -> None:
    study = make_study(20, 10, {"PAIR": 5})
    first, second = (report.save_figures(study, tmp_path / name) for name in ("a", "b"))
    assert {path.name for path in first} == {
        f"{name}.{kind}" for name in ("bands", "roc", "irr", "projection") for kind in ("png", "svg")
    }
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def refers_to_nothing_outside(page: Page) -> None:
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            value = attributes.get(name) or "#"
            beside = re.fullmatch(r"(?:\.\./)*[\w%./-]+\.html", value)  # a page of the same run
            assert beside or value.startswith(("#", "data:image/png;base64,"))
    assert not re.search(r"@import|url\((?!#)|<script|<link|<!DOCTYPE svg", page.source)
    assert set(re.findall(r"https?://[\w./]+", page.source)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def references_have_their_targets(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = set(re.findall(r'(?:url\(#|href="#|aria-labelledby=")([\w-]+)', page.source))
    assert used
    assert used <= set(ids)


def test_the_report_is_one_file_that_refers_to_nothing_outside_itself(page: Page) -> None:
    refers_to_nothing_outside(page)


def test_ids_are_unique_and_every_reference_inside_the_page_has_its_target(page: Page) -> None:
    references_have_their_targets(page)


def test_every_number_in_the_tables_of_results_has_an_interval_and_a_count(page: Page) -> None:
    measured = [" ".join(cell.split()) for cell in page.cells if cell.strip()]
    assert len(measured) == 6 * 5 + 2 * 6 * 4 + 3 * 4 + 2 + 7 * 2
    share, area = r"[\d.]+% [\d.]+–[\d.]+% n = \d+", r"[\d.]+ [\d.]+–[\d.]+ n = \d+ against \d+"
    area += r"(?:, \d+ attacks?)?"
    correlation = r"[+−][\d.]+ [+−][\d.]+ to [+−][\d.]+ n = \d+"
    stop = r"\d+ \d+% of the steps saved n = \d+"
    odd = [cell for cell in measured if not re.fullmatch(f"{share}|{area}|{correlation}|{stop}|none stopped", cell)]
    assert odd == ["not measured"]  # all answers of this study are of one length


def test_the_summary_gives_the_headline_numbers_with_counts(page: Page) -> None:
    for words in (
        "refused 0.5% (0.1–1.8%, n = 400)",
        "398 were kept",
        "251 were kept",
        "n = 387 against 200, 4 attacks",
    ):
        assert words in page.text
    assert "60.0% (50.2–69.1%, n = 100) of the plain harmful test prompts" in page.text


def test_the_report_is_accessible(page: Page) -> None:
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(next_ - last <= 1 for last, next_ in pairwise(levels))
    assert ("html", {"lang": "en"}) in page.elements
    for tag, attributes in page.elements:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "th":
            assert attributes["scope"] in ("col", "colgroup", "row", "rowgroup")


def test_prompts_and_answers_are_in_the_file_only_when_asked_for(study: Study, page: Page, tmp_path: Path) -> None:
    assert "SECRET" not in page.source
    assert "GOAL" not in page.source
    shown = Page(report.write_report(study, tmp_path / "shown.html", show_text=True))
    assert shown.text.count("SECRET PROMPT") == shown.text.count("SECRET TEXT") == 3


HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "a\x00b\x1b[31m",
    "\u202eevil\u2066",
    "\ud800 lone \udfff",
    "x" * 50_000,
    "{{ 7 * 7 }}{% raw %}",
    "$\\frac{1}{2}$ --> ]]> &amp;",
]


def test_hostile_text_is_escaped_wherever_it_stands(tmp_path: Path) -> None:
    everything = "\n".join(HOSTILE)
    study = make_study(12, 6, dict.fromkeys(HOSTILE[:4], 3))
    words = pd.Series([everything] * len(study.generations), dtype=object)  # a column of strings holds no surrogates
    rows = study.generations.assign(prompt=words, text=words, id=words)
    settings = {**study.settings, "model": everything, "sampler": {"name": everything, everything: everything}}
    hostile = replace(study, generations=rows, settings=settings)
    page = Page(report.write_report(hostile, tmp_path / "report.html", show_text=True))
    assert not {tag for tag, _ in page.elements} & {"script", "img"}
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not re.search("[\x00-\x08\x0e-\x1f\u202a-\u202e\u2066-\u2069]", page.source)
    for text in HOSTILE:
        assert page.text.count(" ".join(visible(text).split())) > 12


def test_characters_that_hide_or_reorder_text_are_spelled_out() -> None:
    assert visible("a\u202eb\x00\ud800") == "a⟨U+202E⟩b⟨U+0000⟩⟨U+D800⟩"
    assert visible("سلام\nhé 👩‍🔬") == "سلام\nhé 👩‍🔬"


@pytest.mark.parametrize(
    ("harmless", "harmful", "attacks"),
    [(20, 10, {}), (0, 10, {"PAIR": 5})],
)
def test_what_was_not_measured_is_said_to_be_so(
    harmless: int, harmful: int, attacks: dict[str, int], tmp_path: Path
) -> None:
    study = make_study(harmless, harmful, attacks)
    page = Page(report.write_report(replace(study, settings={}), tmp_path / "report.html"))
    assert "not measured" in page.text
    assert not re.search(r"\bnan\b", page.text)


def test_missing_values_are_left_out_and_never_printed(study: Study, tmp_path: Path) -> None:
    rows = study.generations.assign(guard_error=np.nan, flagged=None, refused=None)
    rates = study.rates.assign(value=np.nan)
    missing = replace(study, generations=rows, rates=rates, detection=study.detection.assign(auroc=np.nan))
    page = Page(report.write_report(missing, tmp_path / "report.html"))
    assert not re.search(r"\bnan\b", page.text)
    assert page.text.count("not measured") > 30


def test_an_example_is_the_generation_of_median_error_among_its_kind(study: Study, page: Page) -> None:
    harmless = study.generations.query("set == 'test_harmless'").sort_values("guard_error")
    assert f"Prompt {harmless['id'].iloc[99]} , group harmless" in page.text


def test_a_figure_too_large_as_svg_becomes_a_png(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "LARGEST_SVG", 1000)
    markup = embedding.embed(report.irr_figure(study), "irr", 'a "description"')
    assert markup.startswith('<img src="data:image/png;base64,')
    assert 'alt="a &#34;description&#34;"' in markup


def test_figures_of_many_attacks_show_a_stated_sample_and_the_tables_hold_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is drawn is bounded, so the time of a report grows with its tables alone."""
    monkeypatch.setattr("demur.report.parts.groups.MOST_DRAWN", 4)
    few, many = (make_study(20, 10, {f"attack {number}": 3 for number in range(count)}) for count in (4, 12))
    for draw in (report.bands_figure, report.roc_figure, report.irr_figure):
        artists = [len(draw(study).findobj()) for study in (few, many)]
        assert artists[1] <= 1.05 * artists[0], draw.__name__
    areas = many.detection.query("detector == 'SRI Guard' and subset == 'all'").set_index("group")["auroc"]
    areas = areas[areas.index.str.startswith("attack ")].sort_values()
    shown = [axes.get_title(loc="left") for axes in report.bands_figure(many).axes]
    drawn = [title.split("\n")[0] for title in shown if title.startswith("attack ")]
    assert len(drawn) == 4
    assert (areas[drawn].min(), areas[drawn].max()) == (areas.min(), areas.max())
    page = Page(report.write_report(many, tmp_path / "report.html"))
    assert "Figures show 4 of 12 attacks" in page.text
    rows = re.findall(r"<span class=\"name\">(attack \d+)</span>", page.source)
    assert set(rows) == set(areas.index)
    assert drawn_words(few) == ""


def test_the_panels_of_the_groups_are_independent(study: Study) -> None:
    # Each change of a shared axis is passed on to all others: with 200 attacks that took most of a minute.
    for axes in bands_figure(study).axes:
        assert len(axes.get_shared_x_axes().get_siblings(axes)) == 1
        assert len(axes.get_shared_y_axes().get_siblings(axes)) == 1
