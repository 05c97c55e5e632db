"""The pictures: one SVG each, scalable, without warnings, whatever the names."""

import re
import xml.etree.ElementTree as ElementTree

import matplotlib
import numpy as np
import pytest

from nlp_transfer.evaluation.calibration import reliability_bins
from nlp_transfer.publishing.drawing import measure_text, shorten, shorten_all
from nlp_transfer.publishing.report import plots

LETTERS = re.compile(
    r'<text style="[^"]*?([\d.]+)px[^"]*?text-anchor: (\w+)[^"]*" x="([-\d.]+)"[^>]*rotate\(-?0 [^>]*>([^<]*)<'
)

NASTY = ["<b>&amp;</b>", "$\\frac{1}{2$ -->", "日本語のとても長いラベル", "עברית \u202e x", "🙂 emoji", "a" * 200]


def parse(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("viewBox", "").startswith("0 0 ")
    assert "width: 100%" in root.get("style", "")
    assert root.get("width") is None
    assert "<script" not in svg
    assert "http" not in svg.replace("http://www.w3.org/", "")
    return root


def read_texts(svg: str) -> list[str]:
    return ["".join(element.itertext()) for element in parse(svg).iter("{http://www.w3.org/2000/svg}text")]


def draw_all(names: list[str]) -> list[str]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(names), 200)
    probabilities = rng.dirichlet(np.ones(len(names)), 200)
    matrix = np.zeros((len(names), len(names)), dtype=np.int64)
    np.add.at(matrix, (labels, probabilities.argmax(1)), 1)
    counts = {split: {name: i + 1 for i, name in enumerate(names)} for split in ("train", "validation", "test")}
    return [
        plots.draw_learning_curves([(1, 0.9), (2, 0.5)], [(1, 0.6), (2, 0.8)], metric="Accuracy", best_step=2),
        plots.draw_confusion(matrix, names),
        plots.draw_reliability(reliability_bins(probabilities, labels)),
        plots.draw_comparison([(name, {"value": 0.5, "low": 0.4, "high": 0.6}) for name in names], metric="F1 macro"),
        plots.draw_labels(counts),
        plots.draw_label_outcomes([(name, 5, 2, 1) for name in names]),
        plots.draw_numbers(rng.normal(size=50), rng.normal(size=50)),
    ]


@pytest.mark.parametrize("names", [["no", "yes"], NASTY, [f"class_{i}" for i in range(77)]])
def test_every_picture_is_one_scalable_svg_whatever_the_names(names):
    svgs = draw_all(names)
    assert len(svgs) == 7
    for svg in svgs:
        assert len(read_texts(svg)) >= 3


def test_names_are_escaped_shortened_and_never_read_as_formulas():
    texts = [text for svg in draw_all(NASTY) for text in read_texts(svg)]
    assert any("<b>&amp;</b>" in text for text in texts)
    assert any("$\\frac" in text for text in texts)
    assert any("…" in text for text in texts)
    assert max(map(len, texts)) < 60
    assert not any("\u202e" in text for text in texts)


def test_up_to_30_classes_have_a_matrix_and_more_have_their_most_confused_pairs():
    for num, expected in ((30, "Confusion matrix"), (31, "Most confused pairs")):
        matrix = np.eye(num, dtype=np.int64) * 9
        matrix[3, 7] = 4
        svg = plots.draw_confusion(matrix, [f"class_{i}" for i in range(num)])
        assert expected in svg
    texts = read_texts(svg)
    assert "4 of 13" in texts
    assert any("class_3" in text for text in texts)


def test_matrix_shows_every_count():
    matrix = np.array([[50, 3], [7, 41]])
    texts = read_texts(plots.draw_confusion(matrix, ["no", "yes"]))
    assert {"50", "3", "7", "41", "94%", "6%"} <= set(texts)


def test_every_color_follows_the_theme_of_the_page():
    for svg in draw_all(["no", "yes"]):
        colors = re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", svg)
        assert set(colors) <= {"#ffffff", "#000000"}
        assert "var(--nt-" in svg


def test_letters_stay_inside_the_picture():
    looked = 0
    names = [f"a rather long name of a class, number {i}" for i in range(8)]
    for svg in draw_all(names):
        width = float(parse(svg).get("viewBox").split()[2])
        for size, anchor, x, text in LETTERS.findall(svg):
            length = measure_text(text) * float(size) * 0.55
            start = float(x) - {"middle": length / 2, "end": length}.get(anchor, 0.0)
            assert start > -2, (text, start)
            assert start + length < width + 2, (text, start + length, width)
            looked += 1
    assert looked > 60


def test_nothing_to_draw_is_an_empty_text():
    empty = reliability_bins(np.array([[0.5, 0.5]]), np.array([0]))
    assert plots.draw_reliability(empty) != ""
    drawn = [
        plots.draw_learning_curves([], [], metric="x"),
        plots.draw_learning_curves([(1, float("nan"))], [], metric="x"),
        plots.draw_confusion(np.zeros((2, 2), dtype=np.int64), ["a", "b"]),
        plots.draw_comparison([("a", {"value": None})], metric="x"),
        plots.draw_labels({"train": {}}),
        plots.draw_label_outcomes([]),
        plots.draw_numbers(np.array([np.nan]), np.array([1.0])),
    ]
    assert drawn == [""] * 7


def test_drawing_leaves_matplotlib_as_it_was_and_opens_no_pyplot_figure():
    before = dict(matplotlib.rcParams)
    draw_all(["no", "yes"])
    assert dict(matplotlib.rcParams) == before


def test_long_runs_have_small_pictures():
    losses = [(step, 1 / step) for step in range(1, 100_001)]
    assert len(plots.draw_learning_curves(losses, [], metric="x")) < 60_000


def test_shortened_names_stay_apart_and_within_their_width():
    names = [f"card_payment_fee_charged_{i}_abroad" for i in range(12)]
    short = shorten_all(names, 16)
    assert len(set(short)) == 12
    assert max(map(measure_text, short)) <= 16
    assert shorten("日本語日本語", 7) == "日本…語"
