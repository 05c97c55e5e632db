import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from nlp_transfer.classifier import Classifier
from nlp_transfer.contracts import LabelSpace
from nlp_transfer.data.encode import encode_splits
from nlp_transfer.errors import EncoderError, RecipeError
from nlp_transfer.fitting.fit import fit_model
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.models.entailment import find_entailment
from nlp_transfer.models.rows import find_ends, splice_tokens
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import EncoderConfig, ZeroShotConfig
from nlp_transfer.runs.pipeline import run
from nlp_transfer.strategies import STRATEGIES
from nlp_transfer.strategies.zero_shot import describe_labels, read_hypotheses
from tests import tiny
from tests.tiny import HEADS, make_splits

LABELS = LabelSpace("classification", ("calm", "loud_places", "war & peace"))
TEXTS = ["A superb and lovely hotel.", "awful", "the room was cold and rude and dusty again today", "plain meal"]


def adapt(folder, labels=LABELS, **settings):
    loaded = load_encoder(EncoderConfig(name=str(folder)), labels, seed=0)
    return STRATEGIES["zero_shot"].adapt(loaded, ZeroShotConfig(kind="zero_shot", **settings))


def compute(model, tokenizer, *texts):
    inputs = tokenizer(*texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**inputs).logits


def fit(folder, splits, *, length=48, **settings):
    recipe = load_recipe(
        {
            "encoder": {"name": str(folder)},
            "task": {"kind": splits.labels.kind},
            "strategy": {"kind": "zero_shot", **settings},
            "data": {"max_length": length},
            "training": {"device": "cpu"},
        }
    )
    prepared = encode_splits(splits, AutoTokenizer.from_pretrained(folder), recipe.data)
    return fit_model(recipe, splits, prepared, Accelerator(cpu=True)), prepared


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", ["classification", "multi_label"])
def test_entailment_of_single_rows_is_that_of_tokenized_pairs(kind, side, family, tiny_encoder):
    folder = tiny_encoder(family, "nli")
    labels = LabelSpace(kind, LABELS.names)
    template = "The mood of this text is {}, is it not?"
    model = adapt(folder, labels, method="entailment", hypothesis_template=template).model
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
    plain = AutoModelForSequenceClassification.from_pretrained(folder)
    found = compute(model, tokenizer, TEXTS)
    against, entails = 0, 2
    assert [HEADS["nli"][number].casefold() for number in (against, entails)] == ["contradiction", "entailment"]
    columns = []
    for name in ("calm", "loud places", "war & peace"):
        logits = compute(plain, tokenizer, TEXTS, [template.format(name)] * len(TEXTS))
        column = logits[:, entails] - logits[:, against] if kind == "multi_label" else logits[:, entails]
        columns.append(column)
    expected = torch.stack(columns, dim=1)
    assert found.shape == (4, 3)
    assert expected.std() > 1e-3
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)


def test_a_pair_is_the_single_row_and_what_was_appended(family, tiny_encoder):
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder(family))
    sentences = ["This text is about war.", "x"]
    hypotheses, types = read_hypotheses(tokenizer, sentences)
    for sentence, tokens, kinds in zip(sentences, hypotheses, types, strict=True):
        single = tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=True)
        pair = tokenizer(TEXTS, [sentence] * 4, padding=True, return_tensors="pt", return_token_type_ids=True)
        _, last_B = find_ends(single["attention_mask"])
        made = splice_tokens(single, last_B + 1, tokens, kinds)
        assert made.keys() == {"input_ids", "attention_mask", "token_type_ids"}
        for key, value in made.items():
            assert torch.equal(value, pair[key]), key


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("entailment", "neutral", "contradiction"), (0, 2)),
        (("Contradicts", "NEUTRAL", "Entails"), (2, 0)),
        (("not_entailment", "ENTAILMENT"), (1, 0)),
        (("entailment", "neutral_or_worse"), (0, 1)),
        (("non-entailment", "neutral", "entailed"), (2, 0)),
    ],
)
def test_outputs_of_an_nli_head_are_found_by_name(names, expected):
    assert find_entailment(names) == expected


@pytest.mark.parametrize("names", [("LABEL_0", "LABEL_1", "LABEL_2"), ("entailment", "neutral", "odd"), ("a", "b")])
def test_another_head_is_refused_with_its_labels(names):
    with pytest.raises(RecipeError, match=f"labels {', '.join(names)}"):
        find_entailment(names)


def test_a_tokenizer_that_frames_pairs_another_way_is_refused():
    class Odd:
        def __call__(self, *texts, **_):
            ids = [9, 1, 2] if len(texts) == 1 else [9, 1, 3, 2]
            return {"input_ids": ids, "token_type_ids": [0] * len(ids)}

    with pytest.raises(EncoderError, match="behind the first, got Odd"):
        read_hypotheses(Odd(), ["b"])


def test_label_vectors_are_the_head_and_logits_are_scaled_cosines(tiny_encoder):
    folder = tiny_encoder("bert")
    words = {"calm": "a calm and gentle place", "war & peace": "war"}
    model = adapt(folder, descriptions=words, template="Text: {}", scale=7.0).model
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = AutoModel.from_pretrained(folder).eval()

    def embed(text):
        with torch.no_grad():
            mean = plain(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0)
        return mean / mean.norm()

    labels = [embed(f"Text: {text}") for text in ("a calm and gentle place", "loud places", "war")]
    expected = torch.stack([torch.stack([7 * embed(text) @ label for label in labels]) for text in TEXTS])
    assert torch.allclose(compute(model, tokenizer, TEXTS), expected, atol=1e-4)


def test_descriptions_are_matched_without_case_and_punctuation_and_mistakes_are_refused():
    words = {"CALM": "quiet", "war & peace": "books"}
    assert describe_labels(LABELS, words, "<{}>") == ["<quiet>", "<loud places>", "<books>"]
    with pytest.raises(RecipeError, match='"clam" is no label of the data'):
        describe_labels(LABELS, {"clam": "quiet", "war & peace": "books"}, "{}")
    with pytest.raises(RecipeError, match=r"two of them describe the label .calm."):
        describe_labels(LABELS, {"calm": "quiet", "Calm": "still"}, "{}")
    # Written for other data as a whole.
    assert describe_labels(LABELS, {"sports": "games"}, "{}") == ["calm", "loud places", "war & peace"]
    alike = LabelSpace("classification", ("a b", "a_b"))
    assert describe_labels(alike, {"a_b": "second", "a b": "first"}, "{}") == ["first", "second"]


def test_reuse_adds_up_the_probabilities_that_mean_the_same(tiny_encoder):
    folder = tiny_encoder("bert", "classifier")
    assert HEADS["classifier"] == ("class 2", "class 0", "class 1")
    ours = LabelSpace("classification", ("bad", "good"))
    mapping = {"class 1": "good", "class 0": "bad", "class 2": "good"}
    tokenizer = AutoTokenizer.from_pretrained(folder)
    theirs = compute(AutoModelForSequenceClassification.from_pretrained(folder), tokenizer, TEXTS).softmax(dim=1)
    found = compute(adapt(folder, ours, method="reuse", mapping=mapping).model, tokenizer, TEXTS).softmax(dim=1)
    assert torch.allclose(found, torch.stack([theirs[:, 1], theirs[:, 0] + theirs[:, 2]], dim=1), atol=1e-6)
    # What is not mapped is left out, and the rest adds up to 1.
    left = compute(
        adapt(folder, ours, method="reuse", mapping={"class 1": "good", "class 0": "bad"}).model, tokenizer, TEXTS
    ).softmax(dim=1)
    assert torch.allclose(left, theirs[:, [1, 2]] / theirs[:, [1, 2]].sum(dim=1, keepdim=True), atol=1e-6)
    several = LabelSpace("multi_label", ("bad", "good"))
    held = compute(adapt(folder, several, method="reuse", mapping=mapping).model, tokenizer, TEXTS).sigmoid()
    assert torch.allclose(held, found, atol=1e-6)


def test_reuse_takes_an_adapter_with_its_head_folded_in(tiny_encoder, tmp_path):
    names = ("class 0", "class 1", "class 2")
    tables = {
        split: table.cast_column("label", table.features["label"]) for split, table in make_splits(24, 3).tables.items()
    }
    first = run(
        {
            "encoder": {"name": str(tiny_encoder("bert", "masked_lm"))},
            "strategy": {"kind": "lora"},
            "training": {"max_steps": 2, "learning_rate": 1e-2, "device": "cpu"},
            "evaluation": {"resamples": 100, "tfidf": False},
        },
        data=tables,
        output_dir=tmp_path / "first",
        progress=False,
    )
    model = adapt(first.folder, LabelSpace("classification", names), method="reuse").model
    tokenizer = AutoTokenizer.from_pretrained(first.model_path)
    expected = Classifier.from_pretrained(first.folder).predict_proba(TEXTS)
    assert np.allclose(compute(model, tokenizer, TEXTS).softmax(dim=1).numpy(), expected, atol=1e-5)


def test_temperature_lowers_the_log_loss_of_validation_and_is_one_saved_number(tiny_encoder, tmp_path):
    tables = make_splits(60, 3).tables
    reports = {}
    for calibrate in ("none", "temperature"):
        reports[calibrate] = run(
            {
                "encoder": {"name": str(tiny_encoder("bert"))},
                "strategy": {"kind": "zero_shot", "scale": 2000.0, "calibrate": calibrate},
                "evaluation": {"resamples": 100},
                "training": {"device": "cpu"},
            },
            data=dict(tables),
            output_dir=tmp_path / calibrate,
            progress=False,
        )
    plain, fitted = reports["none"], reports["temperature"]
    assert fitted.scores["validation"]["log_loss"].value < plain.scores["validation"]["log_loss"].value - 0.01
    assert fitted.predictions["predicted"].tolist() == plain.predictions["predicted"].tolist()
    settings = [
        json.loads((report.model_path / "nlp_transfer.json").read_text(encoding="utf-8"))["architecture"]["settings"]
        for report in (plain, fitted)
    ]
    assert settings[0]["temperature"] == 1.0 < settings[1]["temperature"]
    assert settings[0] | {"temperature": 0} == settings[1] | {"temperature": 0}
    record = plain.record
    assert (record["training"]["steps"], record["model"]["trainable"]) == (0, 0)
    assert "tfidf" in record["baselines"]
    # Nothing is read off train: other rows there, the same answers.
    changed = dict(tables) | {"train": tables["train"].select(range(12))}
    again = run(load_recipe(fitted.folder / "recipe.yaml"), data=changed, output_dir=tmp_path / "again", progress=False)
    columns = [name for name in again.predictions if name.startswith("probability_")]
    assert np.array_equal(again.predictions[columns], fitted.predictions[columns])


def test_descriptions_for_other_data_are_told(tiny_encoder):
    splits = make_splits(16, 3)
    fit(tiny_encoder("bert"), splits, descriptions={"Sports": "games"})
    assert [warning for warning in splits.facts.warnings if "none of them names a label" in warning]
    splits = make_splits(16, 3)
    fit(tiny_encoder("bert"), splits, descriptions={"Class_0": "games"})
    assert splits.facts.warnings == []


REFUSED = [
    ("base", {}, "regression", "gives no numbers"),
    ("base", {}, "multi_label", "which label is nearest"),
    ("base", {"method": "entailment"}, "classification", "needs a classifier at encoder.name, came none"),
    ("base", {"method": "reuse"}, "classification", "needs a classifier at encoder.name, came none"),
    ("classifier", {"method": "entailment"}, "classification", "one of the labels class 2, class 0, class 1"),
    ("nli", {"method": "reuse"}, "classification", r'no label of encoder.name stands for "class 0"'),
    ("nli", {"method": "reuse", "mapping": {"x": "class 0"}}, "classification", '"x" is no label of encoder.name'),
    (
        *("nli", {"method": "reuse", "mapping": {"neutral": "y"}}, "classification"),
        '"y" is no label of the data. Its labels: class 0, class 1',
    ),
    (
        *("nli", {"method": "reuse", "mapping": {"neutral": "class 0", "Entailment": "class 0"}}, "classification"),
        'stands for "class 1"',
    ),
]


@pytest.mark.parametrize(("checkpoint", "settings", "kind", "words"), REFUSED)
def test_what_a_method_cannot_do_is_refused(checkpoint, settings, kind, words, tiny_encoder):
    with pytest.raises(RecipeError, match=words) as caught:
        adapt(tiny_encoder("bert", checkpoint), make_splits(16, 3, kind=kind).labels, **settings)
    assert str(caught.value).startswith("strategy.")


def test_pairs_and_texts_that_leave_no_room_are_refused(tiny_encoder):
    folder = tiny_encoder("bert", "nli")
    with pytest.raises(RecipeError, match="this data has pairs"):
        fit(folder, make_splits(16, 3, pairs=True), method="entailment")
    with pytest.raises(RecipeError, match=r"the encoder reads 128 tokens.*Set data.max_length=(\d+)") as caught:
        fit(folder, make_splits(16, 3), method="entailment", length=128)
    most = int(str(caught.value).rpartition("=")[2].rstrip("."))
    splits = make_splits(16, 3)
    assert fit(folder, splits, method="entailment", length=most)[0].log.steps == 0
    with pytest.raises(RecipeError, match="Shorten the hypotheses"):
        fit(folder, make_splits(16, 3), method="entailment", hypothesis_template="{}" + " very" * 130)


def test_validation_without_labels_sets_no_temperature(tiny_encoder):
    splits = make_splits(16, 3)
    splits.tables["validation"] = splits.tables["validation"].remove_columns("label")
    with pytest.raises(RecipeError, match="needs a validation split with labels"):
        fit(tiny_encoder("bert"), splits, calibrate="temperature")


def test_keys_of_another_method_and_templates_without_a_place_are_refused():
    for settings, words in (
        ({"mapping": {"a": "b"}}, "mapping: does not apply to strategy.method label_embedding"),
        ({"method": "reuse", "descriptions": {"a": "b"}}, "descriptions: does not apply to strategy.method reuse"),
        ({"method": "entailment", "scale": 3.0}, "scale: does not apply to strategy.method entailment"),
        ({"template": "no place"}, r"template: expected \{\} once"),
        ({"method": "entailment", "hypothesis_template": "{} or {}"}, r"hypothesis_template: expected \{\} once"),
        ({"descriptions": {"a": " "}}, "descriptions.a: expected words"),
    ):
        with pytest.raises(RecipeError, match=words):
            load_recipe({"strategy": {"kind": "zero_shot", **settings}})
    with pytest.raises(RecipeError, match="random ones carry no information"):
        load_recipe({"strategy": {"kind": "zero_shot"}, "encoder": {"init": "random"}})


def test_an_nli_run_asks_about_labels(tiny_encoder, tmp_path):
    pairs = {
        split: Dataset.from_dict(
            {
                "text": table["text"][:],
                "text_b": table["text_b"][:],
                "label": [("contradiction", "entailment", "neutral")[label] for label in table["label"]],
            }
        )
        for split, table in make_splits(24, 3, pairs=True).tables.items()
    }
    settings = {"data.max_length": 48, "training.max_steps": 2, "training.device": "cpu", "evaluation.resamples": 100}
    encoder = {"encoder.name": str(tiny_encoder("bert"))}
    run("nli/full", settings | encoder, data=pairs, output_dir=tmp_path / "nli", progress=False)
    del settings["training.max_steps"]
    report = run(
        {"encoder": {"name": str(tmp_path / "nli")}, "strategy": {"kind": "zero_shot", "method": "entailment"}},
        settings,
        data=dict(make_splits(24, 3).tables),
        output_dir=tmp_path / "asked",
        progress=False,
    )
    assert (report.model_path / "encoder" / "model.safetensors").is_file()
    table = report.predictions
    classifier = Classifier.from_pretrained(report.folder)
    assert classifier.predict(table["text"].tolist()) == table["predicted"].tolist()
    assert len(table) == 24
    assert set(tiny.HEADS) == {"nli", "classifier"}
