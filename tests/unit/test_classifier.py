import errno
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from nlp_transfer import Classifier
from nlp_transfer.contracts import LabelSpace, Score
from nlp_transfer.data.exchange import write_table
from nlp_transfer.errors import (
    ArtifactError,
    DataError,
    LabelError,
    OutputError,
    RecipeError,
    StorageError,
    TransferError,
    TransferWarning,
)
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.publishing.artifact import save_artifact
from nlp_transfer.recipe.schema import DEFAULT_METRICS, EncoderConfig, Recipe
from tests.records import rewrite_record

TEXTS = ["a superb hotel", "awful and rude and cold", "plain", "the room was rather quiet today"]
NAMES = ("negative", "neutral", "positive")


@pytest.fixture(scope="module")
def make(tiny_encoder, tmp_path_factory):
    """A function from kind of task and reading to the folder of an artefact with a drawn head."""
    built = {}

    def make(kind="classification", names=NAMES, **reading):
        key = (kind, names, tuple(reading.items()))
        if key not in built:
            labels = LabelSpace(kind, names)
            loaded = load_encoder(EncoderConfig(name=str(tiny_encoder("bert"))), labels, seed=0)
            folder = tmp_path_factory.mktemp("artifact") / "model"
            # A drawn head says nearly the same of every text; louder logits around 0 tell them apart.
            with torch.no_grad():
                loaded.model.classifier.weight *= 20
                tokens = load_tokenizer(loaded.source)(TEXTS, padding=True, return_tensors="pt")
                loaded.model.classifier.bias -= loaded.model.eval()(**tokens).logits.mean(dim=0)
            save_artifact(
                folder,
                loaded.model,
                load_tokenizer(loaded.source),
                labels=labels,
                source=loaded.source,
                merge=False,
                metadata={"reading": {"is_pair": False, "max_length": 32} | reading},
            )
            built[key] = folder
        return built[key]

    return make


@pytest.fixture(scope="module")
def classifier(make):
    return Classifier.from_pretrained(make())


@pytest.fixture(scope="module")
def pairs(make):
    return Classifier.from_pretrained(make(is_pair=True))


def test_probabilities_are_those_of_plain_transformers_in_the_order_of_labels(classifier, make):
    model = AutoModelForSequenceClassification.from_pretrained(make()).eval()
    tokenizer = AutoTokenizer.from_pretrained(make())
    with torch.no_grad():
        wanted = model(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits.softmax(dim=1).numpy()
    found = classifier.predict_proba(TEXTS)
    assert found.shape == (4, 3)
    assert found.dtype == np.float64
    assert np.allclose(found, wanted, atol=1e-6)
    assert np.allclose(found.sum(axis=1), 1)
    assert classifier.labels == list(NAMES) == [model.config.id2label[index] for index in range(3)]


def test_predictions_name_the_most_probable_label(classifier):
    wanted = [NAMES[index] for index in classifier.predict_proba(TEXTS).argmax(axis=1)]
    assert classifier.predict(TEXTS) == wanted
    assert len(set(wanted)) > 1, "one label for all would prove less"


def test_neither_order_nor_batches_change_a_prediction(classifier):
    texts = [f"{text} {number}" for number, text in enumerate(TEXTS * 5)]
    wanted = classifier.predict_proba(texts)
    assert np.allclose(classifier.predict_proba(texts, batch_size=3), wanted, atol=1e-6)
    assert np.allclose(classifier.predict_proba(texts[::-1])[::-1], wanted, atol=1e-6)


def test_no_texts_give_no_predictions(classifier):
    assert classifier.predict([]) == []
    assert classifier.predict_proba([]).shape == (0, 3)


def test_progress_counts_every_text_once(classifier):
    seen = []
    classifier.predict_proba(TEXTS, batch_size=3, progress=seen.append)
    assert sum(seen) == len(TEXTS)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", r"Write \[text\]"),
        (["fine", ""], "item 1 is empty"),
        (["fine", "  \n"], "item 1 is empty"),
        (["fine", None], "item 1: expected a text, got NoneType"),
        ([3.5], "item 0: expected a text, got float"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(texts, message, classifier):
    with pytest.raises(DataError, match=message):
        classifier.predict(texts)


def test_pairs_are_read_as_pairs_and_nothing_else(pairs, classifier):
    assert len(pairs.predict(TEXTS, TEXTS[::-1])) == 4
    one, other = pairs.predict_proba(TEXTS, TEXTS), pairs.predict_proba(TEXTS, TEXTS[::-1])
    assert not np.allclose(one, other)
    with pytest.raises(DataError, match="reads pairs, got single texts"):
        pairs.predict(TEXTS)
    with pytest.raises(DataError, match="reads single texts, got pairs"):
        classifier.predict(TEXTS, TEXTS)
    with pytest.raises(DataError, match="expected 4 texts, one for each of texts, got 3"):
        pairs.predict(TEXTS, TEXTS[:3])
    with pytest.raises(DataError, match="texts_b: item 0 is empty"):
        pairs.predict(["a"], [""])


def test_the_reading_of_the_run_holds(make):
    short = Classifier.from_pretrained(make(max_length=8))
    one, other = short.predict_proba(["the " * 20 + "superb", "the " * 20 + "awful"])
    assert np.allclose(one, other, atol=1e-6)
    both = Classifier.from_pretrained(make(max_length=16, long_text="head_tail"))
    one, other = both.predict_proba(["the " * 20 + "superb lovely", "the " * 20 + "awful rude"])
    assert not np.allclose(one, other, atol=1e-6)


def test_multi_label_gives_lists_of_names(make):
    classifier = Classifier.from_pretrained(make("multi_label"))
    found = classifier.predict_proba(TEXTS)
    assert found.min() >= 0
    assert found.max() <= 1
    assert not np.allclose(found.sum(axis=1), 1)
    wanted = [[name for name, value in zip(NAMES, row, strict=True) if value >= 0.5] for row in found]
    assert classifier.predict(TEXTS) == wanted


def test_a_regression_gives_numbers(make):
    classifier = Classifier.from_pretrained(make("regression", ("stars",)))
    found = classifier.predict(TEXTS)
    assert all(isinstance(value, float) for value in found)
    assert np.allclose(found, classifier.predict_proba(TEXTS)[:, 0])
    table = classifier.predict_table(Dataset.from_dict({"text": TEXTS}))
    assert table.column_names == ["text", "predicted"]


@pytest.fixture(params=["csv", "tsv", "jsonl", "parquet", "frame", "dataset"])
def table(request, tmp_path):
    frame = pd.DataFrame({"n": range(4), "review": TEXTS, "note": ["NA", "None", "null", "x"]})
    if request.param == "frame":
        return frame
    if request.param == "dataset":
        return Dataset.from_pandas(frame)
    path = tmp_path / f"table.{request.param}"
    if request.param == "parquet":
        frame.to_parquet(path)
    elif request.param == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.to_dict("records")), encoding="utf-8")
    else:
        frame.to_csv(path, index=False, sep="\t" if request.param == "tsv" else ",")
    return path


def test_a_table_of_any_form_keeps_its_rows_and_columns_and_gains_predictions(table, classifier):
    found = classifier.predict_table(table)
    assert found.column_names == ["n", "review", "note", "predicted", *(f"probability_{name}" for name in NAMES)]
    assert found["review"][:] == TEXTS
    assert found["note"][:] == ["NA", "None", "null", "x"]
    assert found["predicted"][:] == classifier.predict(TEXTS)
    stated = np.stack([found[f"probability_{name}"][:] for name in NAMES], axis=1)
    assert np.allclose(stated, classifier.predict_proba(TEXTS), atol=1e-12)


@pytest.mark.parametrize("column", ["predicted", "probability_neutral"])
def test_a_column_that_would_be_overwritten_is_refused(column, classifier):
    with pytest.raises(DataError, match=f"'{column}', which would be overwritten"):
        classifier.predict_table(Dataset.from_dict({"text": TEXTS, column: TEXTS}))


def test_the_column_of_the_text_can_be_named(classifier):
    rows = Dataset.from_dict({"title": ["x"] * 4, "story": TEXTS})
    assert classifier.predict_table(rows, text="story")["predicted"][:] == classifier.predict(TEXTS)
    with pytest.raises(DataError, match="nothing"):
        classifier.predict_table(rows, text="nothing")


def test_texts_that_the_encoder_does_not_know_are_warned_of_once(classifier, pairs, monkeypatch):
    monkeypatch.setattr("nlp_transfer.engine.predict.texts.EXAMPLES_PER_CHUNK", 2)
    texts = ["\U0001f375", *TEXTS, "\U0001f377\U0001f377"]
    with pytest.warns(TransferWarning, match=r"^texts: 2 of 6 texts \(33\.3%\) hold nothing.*\U0001f375") as caught:
        assert classifier.predict(texts)[1:5] == classifier.predict(TEXTS)
    assert len(caught) == 1
    assert "train with it as encoder.name" in str(caught[0].message)
    with pytest.warns(TransferWarning, match=r"^mine: 2 of 6 texts") as caught:
        classifier.predict_table(Dataset.from_dict({"text": texts}), where="mine")
    assert len(caught) == 1
    with pytest.warns(TransferWarning, match=r"^mine: 1 of 2 texts \(50\.0%\) holds nothing"):
        pairs.evaluate(
            Dataset.from_dict({"text": ["a hotel"] * 2, "text_b": ["plain", "\U0001f375"], "label": [*NAMES[:2]]}),
            where="mine",
        )


def test_many_texts_with_much_unknown_in_them_are_warned_of(classifier):
    texts = [f"{text} \U0001f375" for text in TEXTS]
    classifier.predict(texts)
    with pytest.warns(TransferWarning, match=r"^texts: \d+\.\d% of the tokens are unknown to the encoder \(emoji"):
        classifier.predict(texts * 5)


def test_a_table_with_an_empty_text_names_the_row(classifier):
    with pytest.raises(DataError, match=r"mine\.csv.*row 2"):
        classifier.predict_table(Dataset.from_dict({"text": ["a", " ", "b"]}), where="mine.csv")


def test_pairs_are_found_in_a_table(pairs):
    rows = Dataset.from_dict({"sentence1": TEXTS, "sentence2": TEXTS[::-1]})
    assert pairs.predict_table(rows)["predicted"][:] == pairs.predict(TEXTS, TEXTS[::-1])
    with pytest.raises(DataError):
        pairs.predict_table(Dataset.from_dict({"text": TEXTS}))


def test_evaluation_gives_scores_with_intervals_and_counts(classifier):
    predicted = classifier.predict(TEXTS)
    wrong = NAMES[(NAMES.index(predicted[0]) + 1) % 3]
    scores = classifier.evaluate(Dataset.from_dict({"text": TEXTS, "label": [wrong, *predicted[1:]]}))
    assert tuple(scores) == DEFAULT_METRICS["classification"]
    accuracy = scores["accuracy"]
    assert isinstance(accuracy, Score)
    assert (accuracy.value, accuracy.n) == (0.75, 4)
    assert accuracy.low <= 0.75 <= accuracy.high


def test_metrics_can_be_chosen(classifier):
    rows = pd.DataFrame({"text": TEXTS, "label": classifier.predict(TEXTS)})
    assert {name: score.value for name, score in classifier.evaluate(rows, metrics=["f1_micro"]).items()} == {
        "f1_micro": 1.0
    }
    with pytest.raises(TransferError, match="no_such"):
        classifier.evaluate(rows, metrics=["no_such"])


def test_a_new_label_is_refused_with_both_sides(classifier):
    rows = Dataset.from_dict({"text": TEXTS, "label": ["negative", "positive", "mixed", "neutral"]})
    with pytest.raises(LabelError, match="mixed") as caught:
        classifier.evaluate(rows)
    assert "neutral" in str(caught.value)


def test_a_permuted_mapping_is_refused(classifier):
    rows = Dataset.from_dict({"text": TEXTS, "label": [0, 1, 2, 0]})
    permuted = rows.cast_column("label", ClassLabel(names=list(reversed(NAMES))))
    with pytest.raises(LabelError, match="negative"):
        classifier.evaluate(permuted)
    assert classifier.evaluate(rows.cast_column("label", ClassLabel(names=list(NAMES))))["accuracy"].n == 4


def test_an_unlabelled_table_is_refused(classifier):
    with pytest.raises(DataError, match="label"):
        classifier.evaluate(Dataset.from_dict({"text": TEXTS}))


def train_on(folder, target, **data):
    """A copy of an artefact that says what its training data looked like."""
    shutil.copytree(folder, target)
    rewrite_record(target / "nlp_transfer.json", recipe=Recipe(data=data).model_dump(mode="json"))
    return Classifier.from_pretrained(target)


def test_a_classifier_reads_tables_as_those_it_was_trained_on(make, tmp_path):
    columns = {"text": "story", "label": "moods", "label_separator": ";"}
    classifier = train_on(make("multi_label"), tmp_path / "model", **columns)
    cells = [";".join(names) for names in classifier.predict(TEXTS)]
    assert any(";" in cell for cell in cells), "one label a row would prove less"
    rows = pd.DataFrame({"title": ["x"] * 4, "story": TEXTS, "label": ["y"] * 4, "moods": cells})
    rows.to_csv(tmp_path / "own.csv", index=False)
    assert classifier.evaluate(tmp_path / "own.csv")["f1_micro"].value == 1.0
    assert classifier.predict_table(rows)["predicted"][:] == classifier.predict(TEXTS)
    # What is said comes first, and columns that are not there are looked for.
    wrong = rows.assign(moods=[";".join(NAMES)] * 4, other=[cell.replace(";", "|") for cell in cells])
    assert classifier.evaluate(wrong)["f1_micro"].value < 1.0
    assert classifier.evaluate(wrong, label="other", label_separator="|")["f1_micro"].value == 1.0
    renamed = pd.DataFrame({"text": TEXTS, "label": cells})
    assert classifier.evaluate(renamed)["f1_micro"].value == 1.0


def test_a_pair_reader_reads_the_columns_it_was_trained_on(make, tmp_path):
    classifier = train_on(make(is_pair=True), tmp_path / "model", text="a", text_b="b")
    rows = {"a": TEXTS, "b": TEXTS[::-1], "text": ["x"] * 4, "text_b": ["y"] * 4}
    expected = classifier.predict_proba(TEXTS, TEXTS[::-1])
    found = classifier.predict_table(Dataset.from_dict(rows))
    assert np.allclose(np.stack([found[f"probability_{name}"][:] for name in NAMES], axis=1), expected)
    other = classifier.predict_table(Dataset.from_dict({"text": TEXTS, "text_b": TEXTS[::-1], "b": ["y"] * 4}))
    assert other["predicted"][:] == found["predicted"][:]


def test_label_columns_may_be_one_name_or_a_list(classifier, make):
    rows = pd.DataFrame({"text": TEXTS, "mine": classifier.predict(TEXTS)})
    for label in ("mine", ["mine"], ("mine",)):
        assert classifier.evaluate(rows, label=label)["accuracy"].value == 1.0
    with pytest.raises(DataError, match=r"data\.label: expected another column than the text, came .text."):
        classifier.evaluate(rows, text="text", label=["text"])
    with pytest.raises(DataError, match="expected one column"):
        classifier.evaluate(rows, label=["mine", "text"])
    many = Classifier.from_pretrained(make("multi_label"))
    on = [[int(name in names) for name in NAMES] for names in many.predict(TEXTS)]
    flags = pd.DataFrame(on, columns=list(NAMES)).assign(text=TEXTS)
    assert many.evaluate(flags, label=list(NAMES))["f1_micro"].value == 1.0
    assert many.evaluate(flags.assign(label=on)[["text", "label"]])["f1_micro"].value == 1.0


def test_a_single_flag_is_evaluated_on_its_own_column(make):
    single = Classifier.from_pretrained(make("multi_label", ("toxic",)))
    on = [str(int(bool(names))) for names in single.predict(TEXTS)]
    for values in (on, [int(value) for value in on]):
        assert single.evaluate(pd.DataFrame({"text": TEXTS, "toxic": values}))["accuracy"].value == 1.0


def test_predictions_of_many_labels_are_read_back_as_labels(make, tmp_path):
    many = Classifier.from_pretrained(make("multi_label"))
    for suffix in ("csv", "tsv", "jsonl", "parquet"):
        out = tmp_path / f"out.{suffix}"
        write_table(many.predict_table(Dataset.from_dict({"text": TEXTS})), out, io.StringIO())
        assert many.evaluate(out, label="predicted")["f1_micro"].value == 1.0


@pytest.mark.parametrize("recipe", [{"data": {"label_separator": 3}}, {"data": {"text": ["a"]}}, {"data": 3}, "text"])
def test_a_recipe_that_was_changed_to_something_else_is_refused(recipe, make, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(make(), folder)
    rewrite_record(folder / "nlp_transfer.json", recipe=recipe)
    with pytest.raises(ArtifactError, match="Copy the artefact again"):
        Classifier.from_pretrained(folder)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_full_disk_leaves_no_half_copy(is_there, classifier, tmp_path, monkeypatch):
    target = tmp_path / "deep" / "copy"
    if is_there:
        target.mkdir(parents=True)
    original, copied = shutil.copyfile, []

    def fail(source, destination):
        copied.append(destination)
        if len(copied) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(source, destination)

    monkeypatch.setattr(shutil, "copyfile", fail)
    with pytest.raises(StorageError, match=r"copy: could not be written: No space left on device\. Free") as caught:
        classifier.save_pretrained(target)
    assert "[(" not in str(caught.value)
    assert len(copied) > 2
    assert target.exists() == is_there
    assert [path for path in tmp_path.rglob("*") if path not in (target, target.parent)] == []
    monkeypatch.undo()
    classifier.save_pretrained(target)
    names = sorted(path.name for path in target.iterdir())
    assert names == sorted(path.name for path in classifier._artifact.folder.iterdir())
    assert [path.name for path in target.parent.iterdir()] == ["copy"]


def test_a_copy_is_the_same_classifier_and_nothing_is_overwritten(classifier, tmp_path):
    target = classifier.save_pretrained(tmp_path / "copy")
    assert np.array_equal(Classifier.from_pretrained(target).predict_proba(TEXTS), classifier.predict_proba(TEXTS))
    before = sorted(path.name for path in target.iterdir())
    with pytest.raises(OutputError, match="is not empty"):
        classifier.save_pretrained(target)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError):
        classifier.save_pretrained(tmp_path / "file")
    assert sorted(path.name for path in target.iterdir()) == before
    assert (tmp_path / "file").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    classifier.save_pretrained(tmp_path / "empty")


def test_a_classifier_shows_what_it_is(classifier):
    assert "classification: negative, neutral, positive" in repr(classifier)


def test_a_missing_artifact_is_refused(tmp_path):
    with pytest.raises(ArtifactError, match="no such folder"):
        Classifier.from_pretrained(tmp_path / "gone")


def test_a_plain_classifier_of_another_tool_predicts(tiny_encoder, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(tiny_encoder("roberta"), id2label={0: "x", 1: "y"})
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_encoder("roberta")).save_pretrained(tmp_path)
    classifier = Classifier.from_pretrained(tmp_path)
    assert classifier.labels == ["x", "y"]
    assert set(classifier.predict(["superb " * 300, "awful"])) <= {"x", "y"}
    assert len(classifier.predict(TEXTS, TEXTS)) == 4


def test_the_number_format_is_chosen_when_a_classifier_is_loaded(classifier):
    folder = classifier._artifact.folder
    with pytest.raises(RecipeError, match="expected auto, fp32 or bf16, got 'half'"):
        Classifier.from_pretrained(folder, precision="half")
    texts = [f"a joy to watch, {index} times" for index in range(70)]
    full, half = (Classifier.from_pretrained(folder, precision=name).predict_proba(texts) for name in ("fp32", "bf16"))
    assert 0 < np.abs(full - half).max() < 0.02
    assert (full.argmax(axis=1) == half.argmax(axis=1)).all()
