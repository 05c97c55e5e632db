"""Every data set that lies beside the checkout is read with the rows and labels its own description counts."""

import re
from pathlib import Path

import numpy as np
import pytest

from nlp_transfer.contracts import SPLITS
from nlp_transfer.data import load_splits, map_labels, prepare_inference_table, read_table
from nlp_transfer.data.checks import hash_texts
from nlp_transfer.data.tables import get_arrow_table
from nlp_transfer.errors import DataError
from nlp_transfer.recipe.schema import DataConfig, TaskConfig

DATA = Path(__file__).parents[2].parent / "shared" / "data"

pytestmark = [pytest.mark.real, pytest.mark.skipif(not DATA.is_dir(), reason="no data sets beside the checkout")]

LABELLED = (
    "ag_news", "amazon_domains", "banking77", "davidson_hate", "imdb", "mrpc", "nli_snli_sick", "rte", "sst2", "trec",
    "tweet_emotion", "wiki_toxicity", "xlmt_sentiment",
)  # fmt: skip
UNLABELLED = ("amazon_unlabelled", "imdb_unlabelled")
TEST_ONLY = ("hatecheck", "madlibs_identity")


def read_description(name):
    """Rows per split, and labels per split where they are listed one by one."""
    section = re.split(r"^### ", (DATA / "README.md").read_text(), flags=re.M)
    text = next(part for part in section if part.startswith(f"{name}\n"))
    rows_line = re.search(r"^- Rows: (.*)$", text, flags=re.M)[1]
    rows = {split: int(count.replace(",", "")) for split, count in re.findall(r"(\w+) ([\d,]*\d)", rows_line)
            if split in SPLITS}  # fmt: skip
    labels = {}
    found = re.search(r"^- Labels: (.*)$", text, flags=re.M)
    for part in found[1].rstrip(".").split("; ") if found else []:
        split, counts = part.split(": ")
        if " labels, " not in counts:
            pairs = [item.rsplit(" ", 1) for item in re.split(r", (?=[^\d])", counts)]
            labels[split] = {label: int(count.replace(",", "")) for label, count in pairs}
    return rows, labels


def test_no_data_set_is_forgotten():
    folders = {entry.name for entry in DATA.iterdir() if entry.is_dir()}
    assert folders == {*LABELLED, *UNLABELLED, *TEST_ONLY}
    assert len(folders) == 17


@pytest.mark.parametrize("name", LABELLED)
def test_a_labelled_set_has_the_rows_and_labels_of_its_description(name):
    rows, labels = read_description(name)
    splits = load_splits(DataConfig(path=str(DATA / name)), TaskConfig(), seed=0)
    assert splits.facts.rows == rows
    assert len(rows) == 3
    assert splits.facts.drawn == []
    assert splits.is_pair == (name in ("mrpc", "nli_snli_sick", "rte"))
    assert {pair: found["exact"] for pair, found in splits.facts.leaked.items() if found["exact"]} == {}
    if name == "banking77":
        assert splits.labels.num_outputs == 77
    else:
        assert splits.facts.label_counts == labels
        assert len(labels) == 3


@pytest.mark.parametrize(
    ("name", "split", "count"),
    [("sst2", "test", 9), ("sst2", "validation", 5), ("trec", "test", 1), ("banking77", "test", 20),
     ("mrpc", "test", 7), ("wiki_toxicity", "test", 1), ("wiki_toxicity", "validation", 3)],
)  # fmt: skip
def test_near_repeats_are_as_many_as_the_description_counts(name, split, count):
    train, other = (
        hash_texts(get_arrow_table(read_table(DATA / name / f"{part}.parquet")))[1] for part in ("train", split)
    )
    assert int(np.isin(train, other).sum()) == count


@pytest.mark.parametrize("name", UNLABELLED)
def test_a_set_without_labels_is_refused_and_can_be_predicted(name):
    rows, _ = read_description(name)
    with pytest.raises(DataError, match="expected a column of labels"):
        load_splits(DataConfig(path=str(DATA / name)), TaskConfig(), seed=0)
    table = read_table(DATA / name / "train.parquet")
    assert len(prepare_inference_table(table, is_pair=False, where=name)) == rows["train"]


@pytest.mark.parametrize("name", TEST_ONLY)
def test_a_set_for_audits_is_refused_for_training_and_can_be_scored(name):
    rows, labels = read_description(name)
    with pytest.raises(DataError, match="expected a train split, came: test"):
        load_splits(DataConfig(path=str(DATA / name)), TaskConfig(), seed=0)
    from nlp_transfer.contracts import LabelSpace

    space = LabelSpace("classification", tuple(labels["test"]))
    table = prepare_inference_table(read_table(DATA / name / "test.parquet"), is_pair=False, where=name)
    counts = np.bincount(map_labels(table, space, where=name)["label"][:])
    assert dict(zip(space.names, counts.tolist(), strict=True)) == labels["test"]
    assert counts.sum() == rows["test"]
