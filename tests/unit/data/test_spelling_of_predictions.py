"""Predicting and evaluating go by the spelling of the labels, whatever the format of the table."""

import json

import pandas as pd
import pytest

from nlp_transfer import Classifier
from nlp_transfer.contracts import LabelSpace
from nlp_transfer.data.load import load_splits
from nlp_transfer.data.tables import read_table
from nlp_transfer.errors import LabelError
from nlp_transfer.evaluation.slices import gather_groups
from nlp_transfer.models.encoder import load_encoder, load_tokenizer
from nlp_transfer.publishing.artifact import save_artifact
from nlp_transfer.recipe.schema import DataConfig, EncoderConfig, TaskConfig

FRAME = pd.DataFrame({"text": [f"a row with number {number}" for number in range(20)], "label": [True, False] * 10})


@pytest.fixture(scope="module")
def load(tiny_encoder, tmp_path_factory):
    """A function from names of labels to a classifier with a drawn head."""

    def load(*names):
        labels = LabelSpace("classification", names)
        loaded = load_encoder(EncoderConfig(name=str(tiny_encoder("bert"))), labels, seed=0)
        folder = tmp_path_factory.mktemp("artifact") / "model"
        save_artifact(
            folder,
            loaded.model,
            load_tokenizer(loaded.source),
            labels=labels,
            source=loaded.source,
            merge=False,
            metadata={"reading": {"is_pair": False, "max_length": 32}},
        )
        return Classifier.from_pretrained(folder)

    return load


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """One frame in every format."""
    folder = tmp_path_factory.mktemp("tables")
    FRAME.to_csv(folder / "a.csv", index=False)
    FRAME.to_json(folder / "a.jsonl", orient="records", lines=True)
    FRAME.to_parquet(folder / "a.parquet")
    return [folder / "a.csv", folder / "a.jsonl", folder / "a.parquet", FRAME]


def test_every_format_has_the_same_scores_and_predictions_in_the_spelling_of_the_labels(load, tables):
    splits = load_splits(DataConfig(path=str(tables[2])), TaskConfig(), seed=0)
    classifier = load(*splits.labels.names)
    scores = [classifier.evaluate(table)["accuracy"].value for table in tables]
    predicted = [classifier.predict_table(table)["predicted"][:] for table in tables]
    assert len(set(scores)) == 1
    assert predicted == [predicted[0]] * 4
    assert set(predicted[0]) <= {"False", "True"}
    right = [name == str(label) for name, label in zip(predicted[0], FRAME["label"], strict=True)]
    assert scores[0] == pytest.approx(sum(right) / 20)


def test_a_classifier_of_an_earlier_version_takes_booleans_for_0_and_1(load, tables):
    early, now = load("0", "1"), load("False", "True")
    found = [early.evaluate(table)["accuracy"].value for table in tables]
    assert found == [now.evaluate(FRAME)["accuracy"].value] * 4
    with pytest.raises(LabelError, match=r'expected one of the labels "no", "yes", came "True"'):
        load("no", "yes").evaluate(FRAME)


def test_nan_that_nobody_reads_does_not_stop_a_prediction(load, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(
        "".join(json.dumps({"text": "a plain row", "note": note}) + "\n" for note in (float("nan"), "late", 3))
    )
    found = load("bad", "good").predict_table(path)
    assert len(found["predicted"]) == 3
    assert found["note"][:] == [None, "late", "3"]


def test_groups_have_one_name_in_every_format(tmp_path):
    frame = pd.DataFrame({"text": list("abcd"), "old": [True, False] * 2, "size": [1.0, 2.0] * 2})
    frame.to_csv(tmp_path / "a.csv", index=False)
    for source in (frame, tmp_path / "a.csv"):
        table = read_table(source)
        assert gather_groups("old", table["old"][:]) == {"True": [0, 2], "False": [1, 3]}
        assert gather_groups("size", table["size"][:]) == {"1": [0, 2], "2": [1, 3]}
