"""The sentences that terminal, page and card share."""

import pytest

from nlp_transfer.publishing.card import render_card
from nlp_transfer.publishing.report.console import facts_lines
from nlp_transfer.publishing.report.page import render_page
from nlp_transfer.publishing.summary import (
    choose_split,
    describe_alignment,
    describe_gain,
    describe_methods,
    list_class_scores,
    list_metrics,
    name_baseline,
    show_text,
    write_headline,
)


@pytest.mark.parametrize(
    ("metric", "low", "high", "verdict", "word"),
    [
        ("accuracy", 0.02, 0.1, "gain", "higher"),
        ("accuracy", -0.02, 0.1, "unclear", "higher"),
        ("accuracy", -0.2, -0.1, "harm", "lower"),
        ("mse", -0.2, -0.1, "gain", "lower"),
        ("mse", 0.1, 0.2, "harm", "higher"),
        ("mse", None, None, "unclear", "higher"),
    ],
)
def test_verdict_follows_the_interval_and_the_direction_of_the_metric(metric, low, high, verdict, word):
    value = 0.1 if low is None else (low + high) / 2
    record = {
        "scores": {"test": {metric: {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}}},
        "baselines": {"tfidf": {}, "no_transfer": {}},
        "gain": {metric: {"value": value, "low": low, "high": high, "n": 9, "over": "no_transfer"}},
    }
    found, sentence = describe_gain(record)
    assert found == verdict
    assert f" {word} than with No transfer (random weights), the better of two controls" in sentence


def test_beside_tfidf_alone_nothing_is_said_of_transfer():
    record = {
        "scores": {"test": {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 9}}},
        "baselines": {"tfidf": {}},
        "gain": {"accuracy": {"value": 0.1, "low": 0.05, "high": 0.15, "n": 9, "over": "tfidf"}},
    }
    verdict, sentence = describe_gain(record)
    assert verdict == "better"
    assert "Transfer helped" not in sentence
    assert "evaluation.control=true" in sentence


def test_without_a_control_no_gain_is_claimed(make):
    record, _ = make(controls=False)
    assert describe_gain(record)[0] == "unknown"
    assert describe_gain({"scores": {}})[0] == "unknown"


def test_headline_takes_test_before_validation_and_says_the_spread_over_seeds(make):
    record, _ = make()
    assert choose_split(record) == "test"
    record["scores"]["test"]["accuracy"] |= {"spread": 0.004, "per_seed": [0.87, 0.88, 0.866]}
    assert write_headline(record) == (
        "Accuracy 0.872 [0.835, 0.905] on 330 test examples, mean of 3 seeds, spread 0.0040"
    )
    del record["scores"]["test"]
    assert choose_split(record) == "validation"
    assert write_headline({"scores": {}}) == "Nothing was scored: no split has labels"


def test_figures_of_single_classes_stand_apart_from_averages(make):
    record, _ = make()
    record["scores"]["test"] |= {
        "f1_negative": {"value": 0.1},
        "recall_negative": {"value": 0.2},
        "f1_class_macro": {"value": 0.3},
        "f1_micro": {"value": 0.4},
    }
    assert list_metrics(record, "test") == ["accuracy", "f1_macro", "mcc", "log_loss", "ece", "f1_micro"]
    assert list_class_scores(record, "test") == {
        "negative": {"f1": {"value": 0.1}, "recall": {"value": 0.2}},
        "macro": {"f1": {"value": 0.3}},
    }


def test_baselines_of_a_regression_are_called_what_they_are():
    regression = {"data": {"kind": "regression"}}
    assert name_baseline(regression, "tfidf") == "TF-IDF + ridge regression"
    assert name_baseline(regression, "majority") == "Mean of train"
    assert name_baseline({}, "majority") == "Majority class"


ALIGNED = [
    ({"accuracy": [0.7, 0.99, 1.0]}, "it still tells the domains apart, so nothing was aligned"),
    ({"accuracy": [0.5, 0.54, 0.52]}, "it guessed from the start, so nothing was aligned"),
    ({"accuracy": [0.6, 0.9, 0.7]}, "it tells the domains apart less well than it did"),
    ({"accuracy": [0.6, 0.72, 0.7]}, "it tells the domains apart as well as ever, so little was aligned"),
    ({"distance": [0.2, 0.3], "chance": [0.19, 0.28]}, "no further apart than chance, so nothing was aligned"),
    (
        {"distance": [0.2, 0.05], "chance": [0.1, 0.04]},
        "2.0 times that of random halves at first and 1.2 times at last",
    ),
    ({"distance": [0.2, 0.05], "chance": [0.1, 0.04]}, "(0.2 and 0.05): they came nearer"),
    ({"distance": [0.2, 0.08], "chance": [0.1, 0.04]}, "they came no nearer, so nothing was aligned"),
    ({"distance": [0.0], "chance": [0.0]}, "no further apart than chance, so nothing was aligned"),
]


@pytest.mark.parametrize(("found", "said"), ALIGNED)
def test_what_an_alignment_came_to_is_said_in_one_sentence(found, said):
    record = {"training": {"methods": {"domain_alignment": {"loss": "mmd", **found}}}}
    assert said in describe_alignment(record)
    assert describe_methods(record) == [("Domain alignment", describe_alignment(record))]
    assert describe_alignment({"training": {}}) == ""


def test_terminal_page_and_card_say_what_an_alignment_came_to(make):
    record, predictions = make()
    record["training"]["methods"] = {"domain_alignment": {"loss": "dann", "accuracy": [0.6, 0.9, 0.7]}}
    said = "it tells the domains apart less well than it did"
    card = render_card(record, format="transformers", kind="classification", labels=["negative", "positive"])
    shown = [*facts_lines(record), card, render_page(record, predictions)]
    assert sum(said in each for each in shown) == 3


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\u202eb", "a\\u202eb"),
        ("a\x00b", "a\\u0000b"),
        ("a\x1b[31mb", "a\\u001b[31mb"),
        ("a\r\n\tb", "a b"),
        ("\u05d0\u200f", "\u05d0\u200f"),
    ],
)
def test_hidden_characters_are_spelled_out_and_letters_are_kept(text, shown):
    assert show_text(text) == shown
