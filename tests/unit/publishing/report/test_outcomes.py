"""What predictions show, against cases worked by hand and against scikit-learn."""

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from nlp_transfer.publishing.report import outcomes


def test_confusions_equal_scikit_learn(make):
    labels = ("a", "b", "c", "never")
    _, predictions = make("classification", labels[:3], num=200)
    labelled = outcomes.select_labelled(predictions, "test")
    expected = confusion_matrix(labelled["label"], labelled["predicted"], labels=list(labels))
    assert len(labelled) == 200
    np.testing.assert_array_equal(outcomes.count_confusions(labelled, labels), expected)
    assert expected.sum() == 200


def test_most_confused_pairs_come_first_and_right_answers_never():
    matrix = np.array([[9, 1, 5], [0, 9, 0], [2, 0, 9]])
    pairs = outcomes.list_confused_pairs(matrix, ["a", "b", "c"], 10)
    assert pairs == [("a", "c", 5, 15), ("c", "a", 2, 11), ("a", "b", 1, 15)]


def test_worst_errors_are_the_surest_mistakes():
    frame = pd.DataFrame(
        {
            "id": list("wxyz"),
            "text": list("wxyz"),
            "label": ["a", "a", "b", "b"],
            "predicted": ["b", "a", "a", "a"],
            "probability_a": [0.4, 0.9, 0.7, 0.95],
            "probability_b": [0.6, 0.1, 0.3, 0.05],
        }
    )
    found = outcomes.find_worst_errors(frame, ["a", "b"], "classification", 2)
    assert [(error.id, error.probability) for error in found] == [("z", 0.95), ("y", 0.7)]
    assert outcomes.find_worst_errors(frame, ["a", "b"], "classification", 0) == []


def test_worst_error_of_a_multi_label_row_is_its_surest_wrong_decision():
    frame = pd.DataFrame(
        {
            "id": ["1", "2", "3"],
            "text": ["t", "t", "t"],
            "label": [["a"], np.array(["a", "b"]), []],
            "predicted": [["a"], np.array(["a"]), ["b"]],
            "probability_a": [0.9, 0.9, 0.1],
            "probability_b": [0.1, 0.3, 0.8],
        }
    )
    found = outcomes.find_worst_errors(frame, ["a", "b"], "multi_label", 9)
    assert [(error.id, error.predicted, round(error.probability, 3)) for error in found] == [
        ("3", "b", 0.8),
        ("2", "a", 0.7),
    ]
    assert found[0].label == "(none)"
    assert outcomes.count_label_outcomes(frame, ["a", "b"]) == [("a", 2, 0, 0), ("b", 0, 1, 1)]
    bins = outcomes.bin_confidence(frame, ["a", "b"], "multi_label", bins=2)
    assert bins.counts.tolist() == [3, 3]
    assert bins.accuracy.round(3).tolist() == [0.333, 0.667]


def test_worst_error_of_a_regression_is_the_largest_distance():
    frame = pd.DataFrame({"id": [1, 2, 3], "text": "t", "label": [1.0, 2.0, 3.0], "predicted": [1.0, 5.0, 2.0]})
    found = outcomes.find_worst_errors(frame, ["y"], "regression", 9)
    assert [(error.id, error.error) for error in found] == [("2", 3.0), ("3", -1.0)]
    assert outcomes.bin_confidence(frame, ["y"], "regression") is None


def test_rows_without_a_label_are_left_out():
    frame = pd.DataFrame({"split": ["test", "test", "train"], "label": ["a", None, "a"], "predicted": "a"})
    assert len(outcomes.select_labelled(frame, "test")) == 1
    assert len(outcomes.select_labelled(frame, None)) == 0
