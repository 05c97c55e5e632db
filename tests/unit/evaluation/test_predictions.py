import numpy as np
import pytest
from scipy import special

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import LabelError, ShapeError, TransferError
from nlp_transfer.evaluation.predictions import gather_sample, predict_labels, to_probabilities

CLASSES = LabelSpace("classification", ("a", "b", "c"))
COLUMNS = LabelSpace("multi_label", ("a", "b"))
NUMBER = LabelSpace("regression", ("score",))


def test_probabilities_equal_scipys_even_for_huge_logits() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32) * 500
    found = to_probabilities(logits, CLASSES)
    assert found.dtype == np.float64
    assert found == pytest.approx(special.softmax(logits.astype(np.float64), axis=1))
    assert to_probabilities(logits[:, :2], COLUMNS) == pytest.approx(special.expit(logits[:, :2].astype(np.float64)))


def test_a_regression_keeps_its_numbers_in_one_column() -> None:
    assert to_probabilities(np.array([1.5, -2.0]), NUMBER).tolist() == [[1.5], [-2.0]]
    assert predict_labels(np.array([[1.5], [-2.0]]), NUMBER).tolist() == [1.5, -2.0]


def test_an_empty_split_has_empty_probabilities() -> None:
    assert to_probabilities(np.zeros((0, 3)), CLASSES).shape == (0, 3)


def test_predictions_follow_thresholds_and_take_the_first_of_equals() -> None:
    shares = np.array([[0.5, 0.49], [0.2, 0.9]])
    assert predict_labels(shares, COLUMNS).tolist() == [[1, 0], [0, 1]]
    assert predict_labels(shares, COLUMNS, [0.1, 0.95]).tolist() == [[1, 0], [1, 0]]
    assert predict_labels(np.full((1, 3), 1 / 3), CLASSES).tolist() == [0]


HALF = np.array([[0.5, 0.5, 0.0]])


@pytest.mark.parametrize(
    ("labels", "values", "space", "error", "said"),
    [
        (np.array([0, 1]), HALF, CLASSES, ShapeError, "2 labels and 1 predictions"),
        (np.array([], dtype=int), np.zeros((0, 3)), CLASSES, ShapeError, "0 labels"),
        (np.array([0]), HALF[:, :2], CLASSES, ShapeError, "a column a label"),
        (np.array([0]), HALF * 7, CLASSES, ShapeError, "to_probabilities"),
        (np.array([0]), np.array([[0.5, 0.5, 0.5]]), CLASSES, ShapeError, "to_probabilities"),
        (np.array([3]), HALF, CLASSES, LabelError, "from 0 to 2"),
        (np.array([-1]), HALF, CLASSES, LabelError, "from 0 to 2"),
        (np.array([0.5]), HALF, CLASSES, LabelError, "whole numbers"),
        (np.array([0]), np.array([[np.nan, 0.5, 0.5]]), CLASSES, TransferError, "NaN or infinity for 1 of 1"),
        (np.array([1]), np.array([[0.5, 0.5]]), COLUMNS, ShapeError, "2-dimensional"),
        (np.array([[0, 2]]), np.array([[0.5, 0.5]]), COLUMNS, LabelError, "from 0 to 1"),
        (np.array([np.nan]), np.array([[0.5]]), NUMBER, LabelError, "finite"),
    ],
)
def test_what_cannot_be_scored_is_refused(labels, values, space, error, said) -> None:
    with pytest.raises(error, match=said):
        gather_sample(labels, values, space, None)


def test_thresholds_are_refused_where_they_do_not_fit() -> None:
    with pytest.raises(ShapeError, match="multi_label"):
        predict_labels(HALF, CLASSES, [0.5, 0.5, 0.5])
    with pytest.raises(ShapeError, match="2 labels"):
        predict_labels(np.array([[0.5, 0.5]]), COLUMNS, [0.5])
