"""The page: complete for every task, self-contained, and safe whatever the data holds."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest

from nlp_transfer.publishing.report.page import render_page

BANKING = tuple(f"intent_{i}_about_cards" for i in range(77))
TASKS = {
    "binary": ("classification", ("negative", "positive")),
    "many": ("classification", BANKING),
    "multi_label": ("multi_label", ("toxic", "obscene", "threat")),
    "regression": ("regression", ("score",)),
    "ordinal": ("ordinal", ("1", "2", "3", "4", "5")),
}
PICTURES = {"binary": 5, "many": 5, "multi_label": 5, "regression": 3, "ordinal": 5}
VOID = {"meta", "br", "wbr", "path", "use", "rect"}


class Checker(HTMLParser):
    """Collects tags and attributes, and insists that every tag is closed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def check(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    checker.close()
    assert checker.open == []
    assert len(checker.tags) > 50
    return checker


@pytest.mark.parametrize("task", TASKS)
def test_page_of_every_task_is_complete_and_loads_nothing_from_outside(make, task):
    kind, labels = TASKS[task]
    page = render_page(*make(kind, labels, num=120))
    found = check(page)
    assert found.tags.count("svg") == PICTURES[task]
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & set(found.tags)
    names = {name for name, _ in found.attributes}
    assert not any(name.startswith("on") or name in ("src", "action") for name in names)
    links = [value for name, value in found.attributes if name in ("href", "xlink:href")]
    assert all(value.startswith("#") for value in links)
    assert "url(http" not in page
    assert "default-src 'none'" in page
    text = " ".join(found.text)
    for expected in (
        "0.872",
        "[0.835, 0.905]",
        "Transfer helped",
        "Worst errors",
        "from_pretrained",
        "max_length: 128",
    ):
        assert expected in text


def test_unlabelled_test_split_is_said_to_be_predicted_and_not_scored(make):
    page = render_page(*make(labelled_test=False, controls=False))
    text = " ".join(check(page).text)
    assert "330 validation examples" in text
    assert "The test split has no labels: it was predicted, not scored." in text
    assert "does not show whether transfer helped" in text
    assert "test examples" not in text


def test_run_without_any_label_still_has_a_page(make):
    record, predictions = make(labelled_test=False, controls=False)
    record["scores"] = {}
    predictions["label"] = None
    assert "Nothing was scored" in " ".join(check(render_page(record, predictions)).text)


def test_page_of_an_empty_record_is_made():
    check(render_page({"scores": {}}, None))


HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</style></title>{{ 7*7 }}",
    "$x^{2$ & --> ]]>",
]


def test_hostile_text_anywhere_is_shown_as_text(make):
    labels = tuple(HOSTILE)
    record, predictions = make("classification", labels, num=60)
    predictions["text"] = [HOSTILE[i % 4] + " \u202egnirts" for i in range(len(predictions))]
    predictions["text_b"] = predictions["text"]
    predictions["id"] = HOSTILE[0]
    record["data"].update(
        source=HOSTILE[1],
        notes=HOSTILE,
        warnings=HOSTILE,
        dropped={HOSTILE[0]: 1},
        leaked={HOSTILE[1]: {HOSTILE[0]: 2}},
    )
    record["recipe"]["report"].update(title=HOSTILE[0], output_dir=HOSTILE[1])
    record["recipe"]["description"] = HOSTILE[2]
    record["model"]["encoder"] = HOSTILE[1]
    record["environment"]["versions"] = {HOSTILE[0]: HOSTILE[1]}
    record["scores"]["test"][f"f1_{HOSTILE[0]}"] = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 60}
    record["baselines"][HOSTILE[0]] = record["baselines"]["tfidf"]
    page = render_page(record, predictions)
    found = check(page)
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert not any(name.startswith("on") for name, _ in found.attributes)
    assert sum(HOSTILE[0] in text for text in found.text) > 5
    assert "49" not in re.findall(r"\{\{.*?\}\}|title>(\d+)", page)
    assert "\u202e" not in page
    assert "\\u202egnirts" in page


def test_text_of_ten_megabytes_is_clamped_and_its_length_said(make):
    record, predictions = make(num=40)
    predictions["text"] = pd.Series(["word " * 2_000_000] * len(predictions), dtype=object)
    page = render_page(record, predictions)
    assert len(page) < 200_000
    assert "10,000,000 letters in all" in page


def test_lone_surrogate_and_null_byte_do_not_break_the_page(make):
    record, predictions = make(num=40)
    predictions["text"] = pd.Series(["bad \ud800 and \x00 text"] * len(predictions), dtype=object)
    page = render_page(record, predictions)
    page.encode("utf-8")
    assert "bad \\ud800 and \\u0000 text" in page


def test_adapter_is_loaded_with_the_literal_labels_and_a_full_model_with_a_pipeline(make):
    adapter = render_page(*make("classification", ("a", "b", "c"), lora=True, num=40))
    assert "AutoPeftModelForSequenceClassification.from_pretrained" in adapter
    assert "num_labels=3" in adapter
    full = render_page(*make("classification", ("a", "b", "c"), num=40))
    assert "AutoPeft" not in full
    assert "pipeline(" in full


def test_several_seeds_are_told_apart_from_the_one_model_that_was_kept(make):
    record, predictions = make(num=40)
    record["seeds"], record["training"]["seed"] = [0, 1, 2], 1
    record["scores"]["test"]["accuracy"] |= {"spread": 0.004, "per_seed": [0.87, 0.88, 0.866]}
    text = " ".join(check(render_page(record, predictions)).text)
    assert "mean of 3 seeds, spread 0.004" in text
    assert "of the one model that was kept, seed 1" in text


def test_same_run_gives_the_same_page(make):
    assert render_page(*make(num=40)) == render_page(*make(num=40))
