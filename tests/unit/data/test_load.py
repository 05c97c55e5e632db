import warnings

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from nlp_transfer.data.load import load_splits
from nlp_transfer.errors import DataError, LabelError
from nlp_transfer.recipe.schema import DataConfig, TaskConfig


def make_frame(count=40, start=0, **columns):
    frame = pd.DataFrame({"text": [f"text {start + n}" for n in range(count)], "label": ["bad", "good"] * (count // 2)})
    return frame.assign(**columns)


def make_splits(**columns):
    return {
        split: make_frame(count, start, **columns)
        for split, count, start in (("train", 40, 0), ("validation", 10, 100), ("test", 20, 200))
    }


def load(source, *, kind="classification", labels=None, seed=0, **data):
    return load_splits(DataConfig(**data), TaskConfig(kind=kind, labels=labels), seed=seed, source=source)


def test_given_splits_keep_rows_order_and_columns():
    source = make_splits(domain="d", n=3)
    splits = load(source)
    assert list(splits.tables) == ["train", "validation", "test"]
    for split, table in splits.tables.items():
        assert table.column_names == ["id", "text", "label", "domain", "n"]
        assert table["text"][:] == source[split]["text"].tolist()
        assert [splits.labels.names[label] for label in table["label"]] == source[split]["label"].tolist()
        assert table["id"][:] == [str(n) for n in range(len(table))]
    assert splits.tables["train"].features["label"] == Value("int64")
    assert splits.facts.rows == {"train": 40, "validation": 10, "test": 20}
    assert splits.facts.label_counts["test"] == {"bad": 10, "good": 10}
    assert (splits.facts.drawn, splits.facts.notes, splits.facts.warnings) == ([], [], [])


def test_missing_splits_are_drawn_stratified_and_said(tmp_path):
    frame = make_frame(200)
    frame.to_csv(tmp_path / "all.csv", index=False)
    splits = load(None, path=str(tmp_path / "all.csv"))
    facts = splits.facts
    assert facts.rows == {"train": 140, "validation": 20, "test": 40}
    assert facts.drawn == ["validation", "test"]
    assert facts.label_counts["test"] == {"bad": 20, "good": 20}
    assert len([note for note in facts.notes if "drawn from train" in note]) == 2
    ids = [int(row) for table in splits.tables.values() for row in table["id"]]
    assert sorted(ids) == list(range(200))
    for table in splits.tables.values():
        assert table["text"][:] == [f"text {row}" for row in table["id"]]
    assert load(frame, seed=5).tables["test"]["id"][:] == splits.tables["test"]["id"][:]
    assert load(frame, seed=5).facts.source == "data"
    assert load(frame).tables["test"]["id"][:] != load(frame, seed=0).tables["train"]["id"][:]
    other = load_splits(DataConfig(seed=1), TaskConfig(), seed=0, source=frame)
    assert other.tables["test"]["id"][:] != splits.tables["test"]["id"][:]


def test_repeated_texts_are_never_drawn_apart():
    frame = pd.concat([make_frame(30), make_frame(30).assign(text=lambda f: f["text"].str.upper() + "!")])
    facts = load(frame).facts
    assert facts.leaked == {}
    assert sum(facts.rows.values()) == 60


def test_limit_takes_the_rows_of_the_seed_zero_shuffle():
    source = make_splits()
    expected = Dataset.from_pandas(source["train"]).shuffle(seed=0).select(range(15))
    splits = load(source, limit=15, seed=3)
    assert splits.tables["train"]["text"][:] == expected["text"][:]
    assert splits.facts.rows == {"train": 15, "validation": 10, "test": 20}
    assert any("all are used" in note for note in load(source, limit=100).facts.notes)
    with pytest.raises(DataError, match=r"data\.limit: expected rows of two classes"):
        load(source, limit=1)


def test_shots_take_rows_of_every_class_by_the_training_seed():
    source = make_splits()
    source["train"].loc[0:2, "label"] = "rare"
    drawn = load(source, shots=5, seed=1)
    assert drawn.facts.label_counts["train"] == {"bad": 5, "good": 5, "rare": 3}
    assert drawn.facts.warnings == ['data.shots: fewer than 5 rows, all used, of "rare".']
    assert load(source, shots=5, seed=1).tables["train"]["id"][:] == drawn.tables["train"]["id"][:]
    assert load(source, shots=5, seed=2).tables["train"]["id"][:] != drawn.tables["train"]["id"][:]
    with pytest.raises(DataError, match=r"data\.shots: expected a task with one class a row"):
        load(make_splits(label=1.5), kind="regression", shots=2)


def test_leaks_are_counted_and_dropped_when_asked():
    source = make_splits()
    source["test"].loc[0, "text"] = "text 3"
    source["test"].loc[1, "text"] = "TEXT 4."
    source["validation"].loc[0, "text"] = source["test"].loc[5, "text"]
    found = {"train/test": {"exact": 1, "near": 1}, "validation/test": {"exact": 1, "near": 0}}
    warned = load(source)
    assert warned.facts.leaked == found
    assert warned.facts.rows["train"] == 40
    assert len(warned.facts.warnings) == 2
    dropped = load(source, leaks="drop")
    assert dropped.facts.leaked == {"validation/test": {"exact": 1, "near": 0}}, "what is left, not what was there"
    assert dropped.facts.dropped == {"leaked": 2}
    assert dropped.facts.warnings == [
        "1 of the rows of test are also in validation: 1 word for word, 0 but for case, punctuation and spacing. "
        "Remove them from validation."
    ]
    assert {"3", "4"}.isdisjoint(dropped.tables["train"]["id"])
    assert dropped.facts.rows == {"train": 38, "validation": 10, "test": 20}


def test_conflicting_duplicates_warn_and_are_counted():
    source = make_splits()
    source["train"].loc[1, "text"] = "text 0"
    facts = load(source).facts
    assert facts.conflicting == 2
    assert "2 rows have a text that also occurs with another label" in facts.warnings[0]


def test_a_text_of_ten_megabytes_warns_and_is_counted():
    source = make_splits()
    source["train"].loc[0, "text"] = "word " * 2_000_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = load(source)
    assert len(splits.facts.warnings) == 1
    assert splits.facts.warnings[0].startswith(
        "train: 1 text of more than a million bytes (the longest has 10,000,000)"
    )
    assert splits.facts.rows["train"] == 40


@pytest.mark.parametrize(
    ("long_text", "expected"),
    [("truncate", "only"), ("head_tail", "its start and its end"), ("windows", "at most data.max_windows")],
)
def test_what_is_read_of_a_long_text_is_said_as_it_is(long_text, expected):
    source = make_splits()
    source["train"].loc[0, "text"] = "word " * 200_001
    (warning,) = load(source, long_text=long_text).facts.warnings
    assert expected in warning
    assert ("only" in warning) == (long_text != "windows")


def test_minus_one_beside_class_numbers_is_missing_where_it_is_rare():
    source = make_splits()
    for split in source:
        source[split]["label"] = (source[split]["label"] == "good").astype(int)
    source["train"].loc[7, "label"] = -1
    with pytest.raises(DataError, match=r"train: expected a label, came none \(-1\) in 1 row \(8\).*data.invalid=drop"):
        load(source)
    splits = load(source, invalid="drop")
    assert splits.labels.names == ("0", "1")
    assert splits.facts.dropped == {"missing_label": 1}
    assert splits.facts.warnings == [
        "-1 is read as a missing label: beside 0 to 1 it stands in 1 of 70 rows. If it is a class, name all classes in "
        "task.labels."
    ]
    named = load(source, labels=["0", "1", "-1"])
    assert named.facts.label_counts["train"] == {"0": 20, "1": 19, "-1": 1}
    assert load(source, kind="ordinal").labels.names == ("-1", "0", "1")
    assert load(source, kind="regression").facts.rows["train"] == 40
    for split in source:
        source[split]["label"] = np.arange(len(source[split])) % 3 - 1
    kept = load(source)
    assert kept.labels.names == ("-1", "0", "1")
    assert kept.facts.warnings == []
    assert kept.facts.notes == [
        "-1 is read as a class: beside 0 to 1 it stands in 25 of 70 rows. Remove these rows if it means that the label "
        "is missing."
    ]


def test_a_test_split_of_many_labels_without_any_is_not_scored(tmp_path):
    for split, cells in {"train": ["a|b", "b", ""], "validation": ["a", "", "b"], "test": ["", "", ""]}.items():
        rows = [f"{split} {n},{cell}" for n, cell in enumerate(cells)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    splits = load(None, path=str(tmp_path), kind="multi_label", label_separator="|")
    assert not splits.is_labelled("test")
    assert "The test split has no labels: it is predicted, not scored." in splits.facts.notes
    (tmp_path / "validation.csv").write_text("text,label\nx,\n")
    with pytest.raises(DataError, match=r"validation\.csv: expected labels in label, came none in the whole split"):
        load(None, path=str(tmp_path), kind="multi_label", label_separator="|")


def test_a_small_split_is_read_as_train_is(tmp_path):
    for split, cells in {"train": ["0|1", "1", "2|0"], "validation": ["0", "1"], "test": ["1", "0"]}.items():
        rows = [f"{split} {n},{cell}" for n, cell in enumerate(cells)]
        (tmp_path / f"{split}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    splits = load(None, path=str(tmp_path), kind="multi_label", label_separator="|")
    assert splits.labels.names == ("0", "1", "2")
    assert splits.tables["test"]["label"][:] == [[0, 1, 0], [1, 0, 0]]
    lists = {"train": [[0, 1], [1], [2]], "validation": [[0, 1], [1, 0]], "test": [[1, 0]]}
    source = {
        split: pd.DataFrame({"text": [f"{split} {n}" for n in range(len(rows))], "label": rows})
        for split, rows in lists.items()
    }
    splits = load(source, kind="multi_label")
    assert splits.tables["test"]["label"][:] == [[1, 1, 0]]
    for split, rows in {"train": ["1", "0", "1"], "validation": ["0", "1"], "test": ["", "1"]}.items():
        source[split] = pd.DataFrame({"text": [f"{split} {n}" for n in range(len(rows))], "toxic": rows})
    splits = load(source, kind="multi_label", label="toxic", invalid="drop")
    assert splits.labels.names == ("toxic",)
    assert splits.facts.label_counts["test"] == {"toxic": 1}


def test_a_single_flag_column_has_its_name_from_csv_and_frame_alike(tmp_path):
    frame = make_frame().assign(toxic=[0, 1] * 20).drop(columns="label")
    frame.to_csv(tmp_path / "d.csv", index=False)
    for options in ({"source": frame}, {"source": None, "path": str(tmp_path / "d.csv")}):
        for label in (["toxic"], "toxic"):
            splits = load(**options, kind="multi_label", label=label)
            assert splits.labels.names == ("toxic",)
            assert sum(counts["toxic"] for counts in splits.facts.label_counts.values()) == 20


def test_texts_that_nobody_sees_are_refused_or_dropped_and_counted():
    source = {"text": [*(f"text {n}" for n in range(20)), "\u200b", " \ufeff"], "label": ["bad", "good"] * 11}
    expected = (
        r"expected a text, came none that can be seen \(U\+200B, U\+FEFF\) in 2 rows \(21, 22\).*data.invalid=drop"
    )
    with pytest.raises(DataError, match=expected):
        load(Dataset.from_dict(source))
    splits = load(Dataset.from_dict(source), invalid="drop")
    assert splits.facts.dropped == {"empty_text": 2}
    assert sum(splits.facts.rows.values()) == 20


def test_invalid_rows_are_refused_or_dropped_and_counted(tmp_path):
    rows = ["text,label", *[f"text {n},{'bad' if n % 2 else 'good'}" for n in range(20)], " ,bad", "x,", ",", "NA,bad"]
    (tmp_path / "train.csv").write_text("\n".join(rows) + "\n")
    expected = (
        r"train\.csv: expected a text, came none in 2 rows \(21, 23\); expected a label, came none in 1 row \(22\)"
    )
    with pytest.raises(DataError, match=expected + ".*data.invalid=drop"):
        load(None, path=str(tmp_path))
    splits = load(None, path=str(tmp_path), invalid="drop")
    assert splits.facts.dropped == {"empty_text": 2, "missing_label": 1}
    assert sum(splits.facts.rows.values()) == 21
    assert sorted(int(row) for table in splits.tables.values() for row in table["id"]) == [*range(20), 23]


@pytest.mark.parametrize("values", [[-1] * 20, [None] * 20])
def test_a_test_split_without_labels_has_no_label_column(values):
    source = make_splits()
    for split in source:
        source[split]["label"] = (source[split]["label"] == "good").astype(int)
    source["test"]["label"] = values
    splits = load(source)
    assert splits.is_labelled("validation")
    assert not splits.is_labelled("test")
    assert splits.tables["test"].column_names == ["id", "text"]
    assert "test" not in splits.facts.label_counts
    assert any("predicted, not scored" in note for note in splits.facts.notes)
    del source["test"]["label"]
    assert not load(source).is_labelled("test")


def test_glue_form_is_read_with_its_class_names():
    features = Features(
        {"sentence1": Value("string"), "sentence2": Value("string"), "label": ClassLabel(names=["no", "yes"]),
         "idx": Value("int32")}
    )  # fmt: skip

    def make(count, start, label):
        rows = range(start, start + count)
        columns = {"sentence1": [f"a {n}" for n in rows], "sentence2": [f"b {n}" for n in rows], "idx": list(rows)}
        return Dataset.from_dict({**columns, "label": [label(n) for n in rows]}, features=features)

    source = {
        "train": make(10, 0, lambda n: n % 2),
        "validation": make(4, 20, lambda n: 1),
        "test": make(5, 30, lambda n: -1),
    }
    splits = load(source)
    assert splits.is_pair
    assert splits.labels.names == ("no", "yes")
    assert splits.tables["train"].column_names == ["id", "text", "text_b", "label", "idx"]
    assert splits.tables["test"].column_names == ["id", "text", "text_b", "idx"]


def test_label_text_names_the_numbers():
    source = make_splits()
    for frame in source.values():
        frame["label_text"] = frame["label"]
        frame["label"] = (frame["label"] == "bad").astype(int)
    splits = load(source)
    assert splits.labels.names == ("good", "bad")
    assert splits.facts.label_counts["train"] == {"good": 20, "bad": 20}
    assert any("label_text" in note for note in splits.facts.notes)
    source["test"]["label_text"] = source["test"]["label_text"].map({"good": "bad", "bad": "good"})
    with pytest.raises(LabelError, match='expected label 1 to mean "bad" as in train, came "good"'):
        load(source)


def test_every_task_has_its_labels():
    numbers = np.arange(40) % 5
    ordinal = load(make_frame(label=numbers), kind="ordinal")
    assert ordinal.labels.names == ("0", "1", "2", "3", "4")
    regression = load(make_frame(label=numbers / 2), kind="regression")
    assert regression.labels.names == ("label",)
    assert regression.tables["train"].features["label"] == Value("float64")
    assert regression.facts.label_counts == {"train": {}, "validation": {}, "test": {}}
    flags = make_frame(x=numbers % 2, y=1 - numbers % 2).drop(columns="label")
    multi = load(flags, kind="multi_label", label=["x", "y"])
    assert multi.labels.names == ("x", "y")
    assert multi.tables["train"].column_names == ["id", "text", "label"]
    assert multi.tables["train"]["label"][0] in ([0.0, 1.0], [1.0, 0.0])
    cells = load(make_frame(label=["a|b", "b"] * 20), kind="multi_label", label_separator="|")
    assert cells.labels.names == ("a", "b")
    assert cells.facts.label_counts["test"]["b"] == cells.facts.rows["test"]


def test_the_ids_of_the_source_are_kept_as_text():
    splits = load(make_splits(key=7), id="key")
    assert set(splits.tables["train"]["id"]) == {"7"}
    assert any("repeat an earlier one" in warning for warning in splits.facts.warnings)


def test_labels_that_look_alike_and_labels_without_rows_are_mentioned():
    source = make_splits()
    source["train"].loc[0, "label"] = "Bad"
    assert any("differ in case or spaces only" in warning for warning in load(source).facts.warnings)
    warned = load(make_splits(), labels=["bad", "good", "none"]).facts.warnings
    assert warned == ['train: no rows of the label "none".']


def change(split, **columns):
    def apply(source):
        source[split] = source[split].assign(**columns)
        return source

    return apply


def drop(split, *columns):
    def apply(source):
        source[split] = source[split].drop(columns=list(columns))
        return source

    return apply


REFUSED = {
    "label absent from train": (change("test", label="new"), {}, LabelError, 'came "new" .in 20 rows'),
    "label beside task.labels": (change("test", label="new"), {"labels": ["bad", "good"]}, LabelError, 'came "new"'),
    "declared label without train rows": (
        change("test", label="none"), {"labels": ["bad", "good", "none"]}, LabelError, 'came "none" in 20 rows of test',
    ),
    "one class": (change("train", label="bad"), {}, DataError, "came only 'bad'"),
    "no label column": (drop("train", "label"), {}, DataError, "expected a column of labels"),
    "validation without labels": (drop("validation", "label"), {}, DataError, "came none in the whole split"),
    "train without labels": (change("train", label=None), {}, DataError, "data, train: .* none in the whole split"),
    "partly labelled test": (
        change("test", label=["bad"] * 19 + [None]), {}, DataError, r"expected a label, came none in 1 row \(20\)",
    ),
    "text column missing in test": (drop("test", "text"), {}, DataError, "data.text: expected a column of data, test"),
    "only numbers": (change("train", text=[str(n) for n in range(40)]), {}, DataError, "came numbers only"),
    "numbers": (change("train", text=list(range(40))), {}, DataError, "came numbers. Write them as text"),
    "mixed types": (change("train", text=["a", 1] * 20), {}, DataError, "row 2: expected one type of value"),
    "nested": (change("train", text=[["a"]] * 40), {}, DataError, "came nested values"),
    "missing text column": ((lambda s: s), {"text": "txt"}, DataError, 'Did you mean "text"'),
    "words for a regression": ((lambda s: s), {"kind": "regression"}, DataError, "expected a number in 'label'"),
    "words for an order": ((lambda s: s), {"kind": "ordinal"}, LabelError, "task.labels"),
    "fractions for classes": (change("train", label=0.5), {}, DataError, "task.kind=regression"),
    "all train rows leak": (
        change("validation", text=[f"text {n}" for n in range(10)]),
        {"leaks": "drop", "splits": {"train": "validation", "validation": "validation"}}, DataError, "came none",
    ),
    "no valid row": (change("train", text=" "), {"invalid": "drop"}, DataError, "expected rows with a text"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_tables_that_cannot_be_used_are_refused(case):
    apply, options, error, expected = REFUSED[case]
    with pytest.raises(error, match=expected) as caught:
        load(apply(make_splits()), **options)
    assert "\n" not in str(caught.value)


def test_permuted_class_names_between_splits_are_refused():
    def make(names, start):
        features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
        return Dataset.from_dict(
            {"text": [f"t {start + n}" for n in range(4)], "label": [0, 1, 0, 1]}, features=features
        )

    source = {"train": make(["a", "b"], 0), "validation": make(["a", "b"], 10), "test": make(["b", "a"], 20)}
    with pytest.raises(
        LabelError, match='data, test: expected the labels "a", "b" in this order, came the same labels'
    ):
        load(source)


def test_an_input_is_never_changed():
    source = make_splits(domain="d")
    before = {split: frame.copy() for split, frame in source.items()}
    load(source, leaks="drop", invalid="drop", limit=10)
    for split, frame in source.items():
        pd.testing.assert_frame_equal(frame, before[split])


def test_permuted_labels_keep_their_counts_and_lose_their_texts():
    def permute(**data):
        return load_splits(DataConfig(**data), TaskConfig(), seed=0, source=make_splits())

    plain, one, same = permute(), permute(permute_labels=True), permute(permute_labels=True)
    other = permute(permute_labels=True, seed=1)
    labels = [splits.tables["train"]["label"][:] for splits in (plain, one, same, other)]
    assert labels[0] != labels[1] == labels[2] != labels[3]
    assert sorted(labels[0]) == sorted(labels[1]) == sorted(labels[3])
    assert one.tables["train"]["text"][:] == plain.tables["train"]["text"][:]
    for split in ("validation", "test"):
        assert one.tables[split]["label"][:] == plain.tables[split]["label"][:]
    assert any("permuted (seed 0)" in warning for warning in one.facts.warnings)
    assert any("permuted (seed 1)" in warning for warning in other.facts.warnings)
    assert not any("permuted" in warning for warning in plain.facts.warnings)


def test_classes_of_one_text_are_named_with_their_rows(tmp_path):
    frame = make_frame(40)
    frame.loc[7, "label"] = "odd"
    frame.loc[[9, 11], "label"] = "rare"
    frame.loc[[9, 11], "text"] = "the same"
    splits = load(frame)
    assert [warning for warning in splits.facts.warnings if "one text" in warning] == [
        'data, train: 2 classes have one text each, which stays in train: "odd" (1 row: row 8), "rare" (2 rows from '
        "row 10). It can hardly be learned, and no score shows it. Correct the label, or add rows."
    ]
    given = load({"train": frame, "validation": make_frame(4, 100), "test": make_frame(4, 200)})
    assert len([warning for warning in given.facts.warnings if '"odd" (1 row: row 8).' in warning]) == 1
    named = load(frame.assign(key=[f"k{n}" for n in range(40)]), id="key")
    assert any('"odd" (1 row: id k7)' in warning for warning in named.facts.warnings)
    many = frame.assign(label=[f"c{n}" if n < 7 else label for n, label in enumerate(frame["label"])])
    assert any("and 4 more. It" in warning for warning in load(many).facts.warnings)
    assert not any("one text" in warning for warning in load(make_frame()).facts.warnings)
    # Where no class has two, that is the task, not a mistake.
    ones = {"train": make_frame(2), "validation": make_frame(2, 10), "test": make_frame(2, 20)}
    assert not any("one text" in warning for warning in load(ones).facts.warnings)


def test_a_header_among_the_rows_is_counted_and_makes_no_class(tmp_path):
    text = make_frame(20).to_csv(index=False)
    (tmp_path / "d.csv").write_text(text + text.replace("text ", "other "))
    splits = load(None, path=str(tmp_path / "d.csv"))
    assert splits.labels.names == ("bad", "good")
    assert sum(splits.facts.rows.values()) == 40
    assert splits.facts.dropped == {"repeated_header": 1}
    assert len([warning for warning in splits.facts.warnings if "(row 21)" in warning]) == 1


def test_the_same_rows_come_from_every_format(tmp_path):
    frame = make_frame(20)
    frame.to_csv(tmp_path / "d.csv", index=False, sep="^")
    frame.to_csv(tmp_path / "d.tsv.gz", index=False, sep="\t")
    frame.to_json(tmp_path / "d.jsonl.bz2", orient="records", lines=True)
    frame.to_excel(tmp_path / "d.xlsx", index=False)
    frame.to_parquet(tmp_path / "d.parquet")
    (tmp_path / "e.csv").write_text("sep=;\n" + frame.to_csv(index=False, sep=";"))
    expected = load(frame)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 6
    for file in files:
        found = load(None, path=str(file))
        assert found.labels == expected.labels
        for split, table in expected.tables.items():
            assert found.tables[split].to_dict() == table.to_dict(), file
