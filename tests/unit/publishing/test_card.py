"""The model card: metadata that the Hub reads, code that runs, text that stays text."""

import ast
import re

import pytest
from huggingface_hub import ModelCard

from nlp_transfer.publishing.card import escape_markdown, render_card, write_hub_card, write_loading_code
from nlp_transfer.strategies import STRATEGIES
from tests.cards import LIBRARIES, check_card

NAMES = ("it's", 'a "quoted" one', "back\\slash", "new\nline", "<script>alert(1)</script>", "| `x` |", "日本\u202e")


def read_code(card: str) -> list[ast.Module]:
    return [ast.parse(block) for block in re.findall(r"```python\n(.*?)\n```", card, flags=re.DOTALL)]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*arguments, **settings):
        raise AssertionError("the card must not ask the network")

    monkeypatch.setattr("socket.create_connection", refuse)


def test_metadata_names_library_task_base_and_every_test_score(make):
    record, _ = make()
    card = ModelCard(render_card(record, format="transformers", kind="classification", labels=("negative", "positive")))
    data = card.data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "text-classification"
    assert data.base_model == "sentence-transformers/all-MiniLM-L6-v2"
    assert data.license == "apache-2.0"
    assert data.language == "en"
    assert data.datasets is None
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {
        metric: score["value"] for metric, score in record["scores"]["test"].items()
    }
    assert len(data.eval_results) == 5


@pytest.mark.parametrize(
    ("model", "source", "base", "datasets"),
    [
        (
            {"encoder": "google-bert/bert-base-uncased"},
            "stanfordnlp/sst2",
            "google-bert/bert-base-uncased",
            ["stanfordnlp/sst2"],
        ),
        ({"encoder": "runs/first/model", "hub_id": None}, "nyu-mll/glue (mrpc)", None, ["nyu-mll/glue"]),
        ({"encoder": "/home/someone/models/mine"}, "/data/reviews.csv", None, None),
        ({"encoder": "/home/someone/mine", "hub_id": "owner/mine"}, "data/reviews.csv", "owner/mine", None),
        ({"encoder": "runs/first/model", "hub_id": None}, "reviews", None, None),
    ],
)
def test_base_model_and_data_set_are_named_only_where_the_hub_knows_them(make, model, source, base, datasets):
    record, _ = make(controls=False)
    record["model"] = model
    record["data"]["source"] = source
    record["recipe"]["data"]["path"] = source.partition(" (")[0]
    record["recipe"]["encoder"]["name"] = model["encoder"]
    text = render_card(record, format="transformers", kind="classification", labels=("no", "yes"))
    card = ModelCard(text)
    assert card.data.base_model == base
    assert card.data.datasets == datasets
    assert "/home/someone" not in text


def test_adapter_call_holds_the_real_labels_as_valid_python(make):
    record, _ = make(lora=True)
    card = render_card(record, format="peft", kind="classification", labels=NAMES, path="runs/it's/model")
    assert ModelCard(card).data.library_name == "peft"
    modules = read_code(card)
    assert len(modules) == 2
    call = next(node for node in ast.walk(modules[0]) if isinstance(node, ast.Call))
    assert ast.unparse(call.func) == "AutoPeftModelForSequenceClassification.from_pretrained"
    assert ast.literal_eval(call.args[0]) == "runs/it's/model"
    given = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    assert given == {
        "num_labels": 7,
        "id2label": dict(enumerate(NAMES)),
        "label2id": {name: index for index, name in enumerate(NAMES)},
        "dtype": "float32",
    }


@pytest.mark.parametrize("kind", ["classification", "multi_label", "regression", "ordinal"])
def test_every_task_has_a_card_whose_code_parses(make, kind):
    labels = ("y",) if kind == "regression" else ("a", "b", "c")
    record, _ = make(kind, labels, num=30)
    card = render_card(record, format="transformers", kind=kind, labels=labels)
    assert len(read_code(card)) == 2
    assert "pipeline(" in card
    assert "AutoModelForSequenceClassification" in card
    assert "| 330 |" not in card
    assert "| 30 |" in card
    assert "## Limits" in card


def test_score_tables_are_rectangular(make):
    record, _ = make("classification", NAMES, num=30)
    record["scores"]["test"]["f1_| `x` |"] = {"value": 0.5, "low": 0.4, "high": 0.6, "n": 30}
    card = render_card(record, format="transformers", kind="classification", labels=NAMES)
    rows = [line for line in card.splitlines() if line.startswith("|")]
    assert len(rows) > 12
    widths = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    assert set(widths) == {8, 3, 4}


def test_hostile_text_stays_text(make):
    record, _ = make()
    hostile = "<img src=x onerror=alert(1)> [click](javascript:alert(1)) ![i](http://evil.example/x.png)\n# heading ```"
    record["data"].update(source=hostile, notes=[hostile], warnings=[hostile])
    record["recipe"]["report"]["title"] = hostile
    record["recipe"]["description"] = hostile
    card = render_card(record, format="transformers", kind="classification", labels=(hostile, "b"))
    assert ModelCard(card).data.library_name == "transformers"
    prose = re.sub(r"(`{3,})\w*\n.*?\n\1", "", ModelCard(card).text, flags=re.DOTALL)
    assert "<img" not in prose
    assert not re.search(r"(?<!\\)\]\(", prose)
    assert "http://" not in prose
    assert len(re.findall(r"^# ", prose, flags=re.MULTILINE)) == 1
    assert len(re.findall(r"&lt;img", prose)) >= 4


def test_technique_that_neither_library_loads_says_so_and_how_it_loads(make):
    record, _ = make()
    card = render_card(record, format="nlp_transfer", kind="classification", labels=("a", "b"), path="here")
    assert "Neither transformers nor peft can load this technique" in card
    (code,) = (ast.unparse(block) for block in read_code(card))
    assert "nt.Classifier.from_pretrained('here')" in code
    assert "AutoModel" not in card


def test_limits_say_what_was_not_measured(make):
    record, _ = make(labelled_test=False, controls=False)
    card = render_card(record, format="transformers", kind="classification", labels=("a", "b"))
    assert "The no-transfer control (same encoder, random weights) was not trained." in card
    assert "The test split has no labels." in card
    assert ModelCard(card).data.eval_results is None


def test_undefined_score_stays_out_of_the_metadata(make):
    record, _ = make()
    record["scores"]["test"]["mcc"]["value"] = None
    card = render_card(record, format="transformers", kind="classification", labels=("a", "b"))
    assert len(ModelCard(card).data.eval_results) == 4
    assert "undefined" in card


def test_loading_code_of_a_regression_reads_raw_numbers():
    assert 'function_to_apply="none"' in write_loading_code("m", "transformers", ["y"], "regression")[0]
    assert "function_to_apply" not in write_loading_code("m", "transformers", ["a", "b"], "classification")[0]


def test_markdown_is_escaped_and_long_text_cut():
    assert escape_markdown("*a* _b_ <c>") == r"\*a\* \_b\_ &lt;c&gt;"
    assert len(escape_markdown("x" * 10_000)) == 301


def test_calls_read_pairs_and_cut_texts_as_training_did(make):
    record, _ = make()
    record["data"] |= {"is_pair": True, "max_length": 48, "long_text": "windows"}
    card = render_card(record, format="transformers", kind="classification", labels=("no", "yes"))
    assert (
        'classify({"text": "a text to read", "text_pair": "its second text"}, truncation=True, max_length=48)' in card
    )
    assert "a pair of texts" in card
    assert "windows of 48 tokens" in card
    record["data"] |= {"is_pair": False, "long_text": "truncate"}
    card = render_card(record, format="transformers", kind="classification", labels=("no", "yes"))
    assert 'classify("a text to read", truncation=True, max_length=48)' in card
    assert "windows" not in card


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", ["classification", "multi_label", "regression", "ordinal"])
def test_every_strategy_and_task_has_a_card_that_the_hub_takes(make, kind, strategy):
    labels = ("y",) if kind == "regression" else NAMES
    record, _ = make(kind, labels, num=30)
    record["recipe"]["strategy"] = {"kind": strategy}
    for library in LIBRARIES:
        card = render_card(record, format=library, kind=kind, labels=labels)
        metadata = check_card(card)
        assert metadata["library_name"] == library
        assert strategy in metadata["tags"]
        assert len(metadata["model-index"][0]["results"][0]["metrics"]) == len(record["scores"]["test"])
        assert ("widget" in metadata) == (library == "transformers")
        assert "sentence-transformers/all-MiniLM-L6-v2 describes these texts" in card
        assert ("### Calibration" in card) == (kind != "regression")
        assert "no-transfer control" in card
        assert "torch: 2.13.0" in card


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("pipeline_tag: text-classification", "pipeline_tag: chat"),
        ("library_name: transformers", "library_name: keras"),
        ("model-index:", "model_index:"),
        ("type: text-classification", "type: 3"),
        ("base_model: sentence-transformers/all-MiniLM-L6-v2", "base_model: /home/someone/model"),
        ("license: apache-2.0", "licence: apache-2.0"),
        ("## Limits", "## Merits"),
        ("---\n", "-- \n"),
    ],
)
def test_a_card_that_the_hub_would_not_take_is_noticed(make, old, new):
    card = render_card(make()[0], format="transformers", kind="classification", labels=("negative", "positive"))
    assert check_card(card)
    assert old in card
    with pytest.raises(AssertionError):
        check_card(card.replace(old, new, 1))


def test_card_counts_labels_and_says_what_was_cut_dropped_and_how_it_was_made(make):
    record, _ = make()
    card = render_card(record, format="transformers", kind="classification", labels=("negative", "positive"))
    counts = record["data"]["label_counts"]
    assert "| Label | validation | test |" in card
    for name in ("negative", "positive"):
        assert f"| {name} | {counts['validation'][name]} | {counts['test'][name]} |" in card
    assert "Truncated texts: train 3, test 1." in card
    assert "Dropped rows: empty text 2." in card
    assert "Expected calibration error on test: 0.792 \\[0.755, 0.825\\] on 330 examples." in card
    assert "precision: bf16" in card
    assert "from random weights" in card


def test_card_says_what_the_encoder_did_not_see(make):
    record, _ = make()
    record["data"] |= {"unseen": {"train": 7, "test": 0}, "unknown_share": {"train": 0.25, "test": 0.001}, "alike": 12}
    card = render_card(record, format="transformers", kind="classification", labels=("negative", "positive"))
    assert "Texts without a token in the encoder's vocabulary: train 7." in card
    assert "Share of unknown tokens: train 25.0%." in card
    assert "Train rows with the same tokens as a different text that has another label: 12." in card


def test_card_of_the_hub_names_the_repository_with_a_report_with_a_card_and_with_neither(make):
    record, _ = make()
    own = render_card(record, format="transformers", kind="classification", labels=("no", "yes"), path="/home/x/model")
    settings = {"repo_id": "owner/name", "format": "transformers", "kind": "classification", "labels": ("no", "yes")}
    metadata = {"encoder": {"name": "mine", "hub_id": "owner/base"}, "reading": {"is_pair": False, "max_length": 32}}
    cards = [
        write_hub_card(card, metadata, report, **settings)
        for card, report in ((own, record), (own, None), (None, None))
    ]
    for card in cards:
        assert card.count("'owner/name'") == 3
        assert "/home/x" not in card
        assert check_card(card)
    assert cards[0] == cards[1]
    assert "base_model: owner/base" in cards[2]
