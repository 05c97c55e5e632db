"""What the guard found, in the words of terminal, page and card."""

from pathlib import Path
from typing import Any

import pytest

from nlp_transfer.publishing.card import render_card
from nlp_transfer.publishing.report.harm import describe_comparison, describe_outcome, list_warnings
from nlp_transfer.publishing.report.page import render_fragment, render_page
from nlp_transfer.publishing.report.result import Report


def make_transfer(verdict: str = "harm", **changes: Any) -> dict[str, Any]:
    gain = {"accuracy": {"value": -0.1, "low": -0.13, "high": -0.07, "n": 330}}
    comparison = {"kind": "link", "with": "/home/x/planted", "without": "minilm-l6", "gain": gain, "verdict": verdict}
    return {
        "metric": "accuracy",
        "split": "test",
        "comparisons": [comparison],
        "is_harmful": verdict == "harm",
        "reasons": ["Trained on <b>noise</b>."] if verdict == "harm" else [],
        "notes": [],
        "guard": False,
        "kept": "transfer",
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "the model was kept as it is. Add evaluation.guard=true, or --guard"),
        ({"guard": True}, "the guard kept the transfer all the same"),
        (
            {"guard": True, "kept": "without_link", "kept_encoder": "minilm-l6", "refused": "/home/x/planted"},
            "the guard refused the transfer from planted: the model kept is the same run from minilm-l6",
        ),
        (
            {"guard": True, "kept": "no_transfer", "kept_encoder": "random weights", "refused": "minilm-l6"},
            "the guard refused the transfer from minilm-l6: the model kept is the no-transfer control",
        ),
    ],
)
def test_harm_is_loud_everywhere_and_says_what_was_kept(make, changes, words):
    record, predictions = make()
    record["transfer"] = make_transfer(**changes)
    page = render_page(record, predictions)
    card = render_card(record, format="transformers", kind="classification", labels=["negative", "positive"])
    shown = [str(Report(record, Path("runs/x"))), page, render_fragment(record, predictions), card]
    for text in shown:
        flat = " ".join(text.split())
        assert "Harmful transfer: from planted, Accuracy on test is 0.100 lower than from minilm-l6" in flat
        assert words in flat
        assert "/home/x" not in flat
    # What comes from data and recipe is escaped.
    assert all("<b>noise</b>" not in text for text in shown[1:])
    assert page.count('class="alert"') == 1
    assert (
        card.splitlines()[
            card.splitlines().index("> **Note:** Likely reason: Trained on &lt;b&gt;noise&lt;/b&gt;.") - 1
        ]
        == ">"
    )


def test_without_harm_nothing_is_said(make):
    record, predictions = make()
    before = (render_page(record, predictions), describe_outcome(record))
    record["transfer"] = make_transfer("gain")
    assert list_warnings(record) == []
    assert (render_page(record, predictions), describe_outcome(record)) == before
    assert describe_outcome(record)[0] == "gain"


def test_the_guards_own_rule_decides_what_is_called_harm(make):
    record, _ = make()
    record["gain"]["accuracy"] = {"value": -0.02, "low": -0.03, "high": -0.001, "n": 330, "over": "no_transfer"}
    assert describe_outcome(record)[0] == "harm"
    record["transfer"] = make_transfer("unclear")
    verdict, sentence = describe_outcome(record)
    assert verdict == "unclear"
    assert "add training.seeds" in sentence
    record["gain"]["accuracy"]["over"] = "tfidf"
    verdict, sentence = describe_outcome(record)
    assert (verdict, "Transfer did harm" in sentence) == ("worse", False)


def test_a_comparison_without_a_figure_says_so():
    record = {"transfer": make_transfer()}
    empty = {"with": "a", "without": "b", "gain": {}}
    assert describe_comparison(record, empty) == "from a, Accuracy could not be held against b"


def test_harm_without_a_reason_says_so():
    record = {"transfer": make_transfer(reasons=[])}
    assert any("No likely reason stands out" in line for line in list_warnings(record))
