import datasets
import huggingface_hub
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from nlp_transfer.data import sources
from nlp_transfer.data.sources import open_source, open_split
from nlp_transfer.errors import DataError
from nlp_transfer.recipe.schema import DataConfig


def write(path, rows=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"text": ["a"] * rows, "label": ["x"] * rows}).to_csv(path, index=False)


def split_rows(found):
    return {split: len(table) for split, table in found.tables.items()}


@pytest.mark.parametrize("alias", ["validation", "valid", "val", "dev", "eval", "Dev"])
def test_a_folder_of_splits_is_read_under_any_usual_name(tmp_path, alias):
    for rows, name in enumerate(("train", alias, "test"), 1):
        write(tmp_path / f"{name}.csv", rows)
    (tmp_path / "README.md").write_text("not a table")
    found = open_source(DataConfig(path=str(tmp_path)))
    assert split_rows(found) == {"train": 1, "validation": 2, "test": 3}
    assert found.where["validation"].endswith(f"{alias}.csv")


def test_the_recipe_may_name_the_splits_and_a_split_is_used_once(tmp_path):
    for rows, name in enumerate(("train", "validation", "matched", "test"), 1):
        write(tmp_path / f"{name}.csv", rows)
    found = open_source(DataConfig(path=str(tmp_path), splits={"validation": "matched"}))
    assert split_rows(found) == {"train": 1, "validation": 3, "test": 4}
    assert found.findings.notes == ["Not used: validation."]
    found = open_source(DataConfig(path=str(tmp_path), splits={"test": "validation"}))
    assert split_rows(found) == {"train": 1, "test": 2}


def test_every_kind_of_source_in_memory_is_read(tmp_path):
    rows = {"text": ["a", "b"], "label": ["x", "y"]}
    table, frame = Dataset.from_dict(rows), pd.DataFrame(rows)
    write(tmp_path / "a.csv")
    sources_seen = [table, frame, DatasetDict(train=table), {"train": frame}, {"train": tmp_path / "a.csv"}]
    for source in sources_seen:
        assert split_rows(open_source(DataConfig(), source)) == {"train": 2}
    DatasetDict(train=table, dev=table).save_to_disk(tmp_path / "saved")
    assert split_rows(open_source(DataConfig(path=str(tmp_path / "saved")))) == {"train": 2, "validation": 2}


def test_a_path_wins_over_a_bundled_name_and_that_over_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "find_example", lambda name: tmp_path / "bundled" if name == "owner/name" else None)
    write(tmp_path / "bundled" / "train.csv", 3)
    assert split_rows(open_source(DataConfig(path="owner/name"))) == {"train": 3}
    write(tmp_path / "owner" / "name" / "train.csv", 5)
    assert split_rows(open_source(DataConfig(path="owner/name"))) == {"train": 5}


def make_folder(folder, *names):
    folder.mkdir()
    for name in names:
        write(folder / name)


REFUSED_FOLDERS = {
    "no splits": (("notes.csv",), "expected a folder with train, validation and test files .* came: notes.csv"),
    "nothing": ((), "came: nothing"),
    "two formats": (("train.csv", "train.tsv"), "expected one train file, came several: train.csv, train.tsv"),
    "two names": (("train.csv", "dev.csv", "val.csv"), "expected one validation split, came several: dev, val"),
    "no train": (("test.csv",), "expected a train split, came: test"),
}


@pytest.mark.parametrize("case", REFUSED_FOLDERS)
def test_folders_that_leave_a_doubt_are_refused(tmp_path, case):
    names, expected = REFUSED_FOLDERS[case]
    make_folder(tmp_path / "set", *names)
    with pytest.raises(DataError, match=expected):
        open_source(DataConfig(path=str(tmp_path / "set")))


def test_a_folder_named_like_a_file_says_so(tmp_path):
    make_folder(tmp_path / "reviews.csv", "part.csv")
    with pytest.raises(DataError, match="expected a file, came a folder without train"):
        open_source(DataConfig(path=str(tmp_path / "reviews.csv")))


def test_what_is_not_there_names_the_nearest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "list_examples", lambda: ["reviews"])
    write(tmp_path / "tickets.csv")
    cases = {
        "ticket.csv": 'Did you mean the file or folder "tickets.csv"',
        "review": 'Did you mean the bundled "reviews"',
        "some/folder/file.csv": "Check the name",
        "data/missing.csv": "which is none of these",
        "x" * 5000: "which is none of these",
    }
    for path, expected in cases.items():
        with pytest.raises(DataError, match=expected):
            open_source(DataConfig(path=path))
    assert len(cases) == 5


def test_an_unknown_split_name_is_refused(tmp_path):
    write(tmp_path / "train.csv")
    with pytest.raises(DataError, match=r'came .trian.; there are: train. Did you mean "train"'):
        open_source(DataConfig(path=str(tmp_path), splits={"train": "trian"}))
    with pytest.raises(DataError, match="came the single file"):
        open_source(DataConfig(path=str(tmp_path / "train.csv"), splits={"train": "train"}))
    with pytest.raises(DataError, match="came int"):
        open_source(DataConfig(), 3)


def test_offline_says_at_once_what_is_missing(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(sources, "_reach", lambda url: pytest.fail("asked the network"))
    with pytest.raises(DataError, match=r"nyu-mll/glue \(mrpc\) in the cache.*HF_HUB_OFFLINE.*data.path=FOLDER"):
        open_source(DataConfig(path="nyu-mll/glue", name="mrpc"))


def test_offline_a_mistyped_folder_is_told_from_a_data_set_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "tickets").mkdir(parents=True)
    cases = {
        "data/tickest": 'data.path: .data/tickest. is no file or folder here. Did you mean the file or folder "data/ti',
        "data/reviewz": 'is no file or folder here. Did you mean the bundled "reviews"?',
        "some/where": "is no file or folder here. Taken as a data set of the Hub",
    }
    for path, expected in cases.items():
        with pytest.raises(DataError, match=f"{expected}.*in the cache of datasets"):
            open_source(DataConfig(path=path))
    assert len(cases) == 3


def test_without_a_network_there_are_no_retries(monkeypatch, caplog):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"so it was taken as a data set of the Hub.*data.path=FOLDER"):
        open_source(DataConfig(path="nobody/nothing"))
    assert huggingface_hub.constants.HF_HUB_OFFLINE is False
    assert "Retrying" not in caplog.text


def test_a_hub_data_set_is_asked_for_as_the_recipe_names_it(monkeypatch):
    asked = []

    def load(path, name, revision):
        asked.append((path, name, revision))
        table = Dataset.from_dict({"text": ["a"], "label": ["x"]})
        return DatasetDict(train=table, validation=table, unsupervised=table)

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(sources, "_reach", lambda url: True)
    found = open_source(DataConfig(path="owner/name", name="part", revision="main"))
    assert asked == [("owner/name", "part", "main")]
    assert split_rows(found) == {"train": 1, "validation": 1}
    assert found.name == "owner/name (part)"
    assert found.findings.notes == ["Not used: unsupervised."]


def test_a_hub_repository_that_needs_a_script_is_refused(monkeypatch):
    def load(path, name, revision):
        raise RuntimeError("Dataset scripts are no longer supported, but found name.py")

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(sources, "_reach", lambda url: True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match="came: Dataset scripts are no longer supported"):
        open_source(DataConfig(path="owner/name"))


def write_shards(folder, split, count, ending, skip=(), hashed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        if number in skip:
            continue
        table = Dataset.from_dict({"text": [f"{split} {number} a", f"{split} {number} b"], "label": ["x", "y"]})
        path = folder / f"{split}-{number:05d}-of-{count:05d}{f'-{number:016x}' if hashed else ''}{ending}"
        if ending == ".parquet":
            table.to_parquet(path)
        elif ending == ".jsonl":
            table.to_json(path)
        else:
            table.to_pandas().to_csv(path, index=False)


@pytest.mark.parametrize("place", ["", "data"])
@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".csv", ".csv.gz"])
@pytest.mark.parametrize("hashed", [False, True])
def test_shards_are_read_in_their_order_as_the_hub_keeps_them(tmp_path, place, ending, hashed):
    write_shards(tmp_path / place, "train", 11, ending, hashed=hashed)
    write_shards(tmp_path / place, "test", 1, ending, hashed=hashed)
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / "notes.txt").write_text("a note")
    found = open_source(DataConfig(path=str(tmp_path)))
    assert split_rows(found) == {"train": 22, "test": 2}
    assert found.tables["train"]["text"][:] == [f"train {n} {row}" for n in range(11) for row in "ab"]
    assert found.where["train"].endswith(f"train-*-of-00011{ending}")
    assert found.findings.list_notes() == []
    only = open_split(DataConfig(path=str(tmp_path)), "test")
    assert split_rows(only) == {"test": 2}
    with pytest.raises(DataError, match=r"expected a split 'validation', came: train, test"):
        open_split(DataConfig(path=str(tmp_path)), "validation")


BROKEN_SHARDS = {
    "missing": (lambda folder: write_shards(folder, "train", 12, ".csv", skip=range(1, 11)),
                r"expected 12 shards of train, came 2: missing train-00001-of-00012\.csv.*\.\.\.\. Fetch"),
    "missing beside a whole split": (lambda folder: [write_shards(folder, "train", 2, ".csv"),
                                                     write_shards(folder, "test", 2, ".csv", skip=[0])],
                                     r"came 1: missing test-00000-of-00002\.csv\. Fetch"),
    "twice": (lambda folder: [write_shards(folder, "train", 2, ".csv"),
                              write_shards(folder, "train", 2, ".csv", hashed=True)],
              "once, came train-00000-of-00002-0000000000000000.csv and train-00000-of-00002.csv"),
    "too many": (lambda folder: [write_shards(folder, "train", 2, ".csv"), write(folder / "train-00002-of-00002.csv")],
                 "came train-00002-of-00002.csv too"),
    "two sets": (lambda folder: [write_shards(folder, "train", 2, ".csv"), write_shards(folder, "train", 3, ".csv")],
                 r"several: train-\*-of-00002\.csv, train-\*-of-00003\.csv"),
    "beside a file": (lambda folder: [write_shards(folder, "train", 2, ".csv"), write(folder / "train.csv")],
                      r"several: train\.csv, train-\*-of-00002\.csv"),
    "other columns": (lambda folder: [write_shards(folder, "train", 2, ".csv", skip=[1]),
                                      (folder / "train-00001-of-00002.csv").write_text("text,mood\na,x\n")],
                      r"train-00001-of-00002\.csv: expected the columns of train-00000-of-00002\.csv \(text, label\)"),
    "other types": (lambda folder: [write_shards(folder, "train", 2, ".jsonl", skip=[1]),
                                    (folder / "train-00001-of-00002.jsonl").write_text('{"text": "", "label": [1]}')],
                    r"train-\*-of-00002\.jsonl: expected one type of value in 'label'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_SHARDS)
def test_shards_that_do_not_make_one_table_are_refused_by_name(tmp_path, case):
    make, expected = BROKEN_SHARDS[case]
    make(tmp_path / "set")
    with pytest.raises(DataError, match=expected):
        open_source(DataConfig(path=str(tmp_path / "set")))


def test_class_names_of_shards_have_to_agree(tmp_path):
    for number, names in enumerate((["a", "b"], ["a", "b"], ["b", "a"])):
        features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
        table = Dataset.from_dict({"text": ["t"], "label": [1]}, features=features)
        for count in (2, 3):
            if number < count:
                table.to_parquet(tmp_path / f"train{count}-{number:05d}-of-{count:05d}.parquet")
    found = open_source(DataConfig(path=str(tmp_path), splits={"train": "train2"}))
    assert found.tables["train"].features["label"].names == ["a", "b"]
    assert found.tables["train"]["label"][:] == [1, 1]
    with pytest.raises(DataError, match=r"train3-00002-of-00003\.parquet: expected in 'label' the class names"):
        open_source(DataConfig(path=str(tmp_path), splits={"train": "train3"}))


def test_a_split_may_be_a_folder_of_its_own(tmp_path):
    for number in range(3):
        write(tmp_path / "train" / f"part-{number}.csv", number + 1)
    write(tmp_path / "test" / "0000.csv", 4)
    found = open_source(DataConfig(path=str(tmp_path)))
    assert split_rows(found) == {"train": 6, "test": 4}
    assert found.where == {"train": f"{tmp_path}/train/*.csv", "test": f"{tmp_path}/test/0000.csv"}
    (tmp_path / "train" / "more.jsonl").write_text('{"text": "a", "label": "x"}\n')
    with pytest.raises(DataError, match=r"train: expected files of one format, came \.csv, \.jsonl"):
        open_source(DataConfig(path=str(tmp_path)))


def test_one_shard_alone_is_read_with_a_note(tmp_path):
    write_shards(tmp_path, "train", 2, ".csv")
    found = open_source(DataConfig(path=str(tmp_path / "train-00001-of-00002.csv")))
    assert split_rows(found) == {"train": 2}
    assert "is one of 2 shards" in found.findings.notes[0]


@pytest.mark.parametrize("ending", [".tsv.gz", ".jsonl.bz2", ".csv.xz", ".txt"])
def test_splits_of_every_ending_are_found(tmp_path, ending):
    frame = pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]})
    for split in ("train", "dev"):
        if "json" in ending:
            frame.to_json(tmp_path / f"{split}{ending}", orient="records", lines=True)
        else:
            frame.to_csv(tmp_path / f"{split}{ending}", index=False, sep="\t")
    found = open_source(DataConfig(path=str(tmp_path)))
    assert split_rows(found) == {"train": 2, "validation": 2}
    assert found.tables["train"].column_names == ["text", "label"]


def test_the_delimiter_of_several_files_is_said_once(tmp_path):
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.csv").write_text("text;label\na, b;x\n")
    found = open_source(DataConfig(path=str(tmp_path)))
    assert len(found.findings.list_notes()) == 1
    assert "train.csv" in found.findings.list_notes()[0]
    assert "dev.csv" in found.findings.list_notes()[0]
    named = open_source(DataConfig(path=str(tmp_path), delimiter=";"))
    assert named.findings.list_notes() == []
    assert named.tables["train"].column_names == ["text", "label"]


def test_tables_of_every_kind_in_memory_may_be_splits():
    rows = {"text": ["a", "b"], "label": ["x", "y"]}
    frame = pl.DataFrame(rows)
    for table in (rows, frame, frame.lazy(), frame.to_dicts(), pa.table(rows)):
        assert split_rows(open_source(DataConfig(), table)) == {"train": 2}
        assert split_rows(open_source(DataConfig(), {"train": table, "dev": frame})) == {"train": 2, "validation": 2}
    unlike = {"train": rows, "test": frame.to_dicts()}
    assert split_rows(open_source(DataConfig(), unlike)) == {"train": 2, "test": 2}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({}, "came a mapping of nothing"),
        ({"text": "a", "label": "x"}, r"came a mapping of text: str, label: str\. Write"),
        ({"text": ["a"], "label": "x"}, "text: list, label: str"),
        ((["a"], ["x"]), "came tuple"),
        (["a"], "came list"),
    ],
    ids=str,
)
def test_what_is_neither_columns_nor_splits_is_told_how_to_be(source, expected):
    with pytest.raises(DataError, match=expected):
        open_source(DataConfig(), source)
