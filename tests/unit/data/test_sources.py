import datasets
import huggingface_hub
import pandas as pd
import pytest
from datasets import Dataset, DatasetDict

from nlp_transfer.data import sources
from nlp_transfer.data.sources import open_source
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
