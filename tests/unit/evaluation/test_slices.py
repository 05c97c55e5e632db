import numpy as np
import pytest

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import DataError, ShapeError
from nlp_transfer.evaluation.scoring import score_split
from nlp_transfer.evaluation.slices import bucket_lengths, gather_groups, score_slices

SPACE = LabelSpace("classification", ("no", "yes"))
SETTINGS = {"resamples": 200, "confidence": 0.95}


def make_rows(num_rows=90):
    """Rows of three shops; everything of the second is wrong."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, num_rows)
    shops = [("north", "south", None)[row % 3] for row in range(num_rows)]
    right = np.array([shop != "south" for shop in shops])
    probabilities = np.where((labels == 1)[:, None] == right[:, None], [[0.2, 0.8]], [[0.8, 0.2]])
    return labels, probabilities, shops


def test_the_planted_group_is_the_worst_and_every_row_is_counted():
    labels, probabilities, shops = make_rows()
    table = score_slices({"shop": shops}, labels, probabilities, SPACE, "accuracy", **SETTINGS)["shop"]
    assert table["worst"] == "south"
    assert table["groups"][0]["name"] == "south"
    assert {row["name"]: row["value"] for row in table["groups"]} == {"south": 0.0, "north": 1.0, "(none)": 1.0}
    assert sum(row["n"] for row in table["groups"]) == 90
    assert table["left_out"] == 0


def test_a_group_has_the_score_and_interval_of_its_rows_alone():
    draw = np.random.default_rng(2)
    labels, probabilities = draw.integers(0, 2, 60), draw.dirichlet([1, 1], size=60)
    groups = ["a"] * 40 + ["b"] * 20
    table = score_slices({"g": groups}, labels, probabilities, SPACE, "f1_macro", **SETTINGS)["g"]
    rows = {row["name"]: row for row in table["groups"]}
    alone = score_split(labels[40:], probabilities[40:], SPACE, ["f1_macro"], **SETTINGS)["f1_macro"]
    assert (rows["b"]["value"], rows["b"]["low"], rows["b"]["high"]) == (alone.value, alone.low, alone.high)


def test_lower_is_better_turns_the_order():
    labels, probabilities, shops = make_rows()
    table = score_slices({"shop": shops}, labels, probabilities, SPACE, "log_loss", **SETTINGS)["shop"]
    assert table["worst"] == "south"


def test_small_groups_are_shown_but_not_called_the_worst():
    labels, probabilities, _ = make_rows()
    groups = ["tiny" if row in (1, 4, 7) else "a" if row % 2 else "b" for row in range(90)]
    table = score_slices({"g": groups}, labels, probabilities, SPACE, "accuracy", **SETTINGS)["g"]
    assert table["groups"][0]["name"] == "tiny"
    assert table["groups"][0]["n"] == 3
    assert table["worst"] in ("a", "b")
    alone = score_slices({"g": ["a"] * 90}, labels, probabilities, SPACE, "accuracy", **SETTINGS)["g"]
    assert alone["worst"] is None


def test_lists_put_a_row_into_several_groups():
    assert gather_groups("terms", [["gay", "black"], [], ["gay"], "", None]) == {
        "gay": [0, 2],
        "black": [0],
        "(none)": [1, 3, 4],
    }


def test_lengths_fall_into_buckets_that_hold_every_text():
    texts = [" ".join(["w"] * (1 + n % 20)) for n in range(200)]
    names = bucket_lengths(texts)
    assert len(names) == 200
    assert len(set(names)) == 4
    for text, name in zip(texts, names, strict=True):
        low, high = map(int, name.removesuffix(" words").split("-"))
        assert low <= len(text.split()) <= high
    assert bucket_lengths(["one two"] * 5) == ["2-2 words"] * 5
    assert bucket_lengths([]) == []


def test_a_column_of_ids_and_one_of_another_size_are_refused():
    labels, probabilities, shops = make_rows(300)
    with pytest.raises(DataError, match="expected a column that groups rows, came 'id' with 300 values"):
        score_slices({"id": list(range(300))}, labels, probabilities, SPACE, "accuracy", **SETTINGS)
    with pytest.raises(ShapeError, match="expected 300 values of 'shop', got 299"):
        score_slices({"shop": shops[1:]}, labels, probabilities, SPACE, "accuracy", **SETTINGS)
