"""Labels that look like others, or like none: what is refused, and what is warned of, whatever the file format."""

import numpy as np
import pandas as pd
import pytest

from nlp_transfer.data.load import load_splits
from nlp_transfer.errors import DataError
from nlp_transfer.recipe.schema import DataConfig, TaskConfig
from tests.tiny import make_texts

NUM_ROWS = 36


def load(table: pd.DataFrame, kind: str = "classification", **settings: object):
    return load_splits(DataConfig(**settings), TaskConfig(kind=kind), seed=0, source=table)


def make_table(labels: list[object], **columns: object) -> pd.DataFrame:
    rows = NUM_ROWS // len(labels)
    return pd.DataFrame({"text": make_texts(NUM_ROWS, seed=2), "label": labels * rows, **columns})


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "xlsx", "memory"])
def test_a_number_without_end_is_no_class_in_any_format(ending, tmp_path):
    table = make_table([1.0, 2.0, float("inf")])
    if ending == "memory":
        with pytest.raises(DataError, match=r"row 3: expected classes in 'label', came the number inf"):
            load(table)
        return
    path = tmp_path / f"table.{ending}"
    if ending == "parquet":
        table.to_parquet(path)
    elif ending == "xlsx":
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    with pytest.raises(DataError, match=r"row 3: expected classes in 'label', came the number inf"):
        load_splits(DataConfig(path=str(path)), TaskConfig(), seed=0)


def test_a_number_without_end_is_no_rank():
    with pytest.raises(DataError, match=r"came the number inf"):
        load(make_table(["1", "2", "inf"]), "ordinal")


def test_a_word_like_that_beside_words_is_a_word():
    assert load(make_table(["inf", "sup"])).labels.names == ("inf", "sup")


def test_one_letter_as_one_character_or_two_is_warned_of():
    facts = load(make_table(["sch\u00f6n", "scho\u0308n", "gut"])).facts
    assert [warning for warning in facts.warnings if "differ in Unicode form only" in warning]
    assert not [warning for warning in load(make_table(["sch\u00f6n", "gut"])).facts.warnings if "differ" in warning]
    assert [w for w in load(make_table(["Good", "good"])).facts.warnings if "differ in case or spaces only" in w]


@pytest.mark.parametrize("cell", ["{'joy', 'anger'}", "set()", '{"joy"}'])
def test_the_text_of_a_python_set_is_refused_with_its_row(cell):
    table = make_table(["joy, anger", "joy", cell])
    with pytest.raises(DataError, match=r"row 3: expected labels with commas between them .* came the Python set"):
        load(table, "multi_label")


def test_columns_that_differ_in_case_alone_are_not_chosen_between():
    table = make_table(["bad", "good"], TEXT="x").rename(columns={"text": "Text"})
    with pytest.raises(DataError, match=r"data\.text"):
        load(table)
    assert load(table, text="Text").facts.rows["train"] > 10
    with pytest.raises(DataError, match=r"data\.text"):
        load(make_table(["bad", "good"], SENTENCE="x").rename(columns={"text": "Sentence"}))
    exact = make_table(["bad", "good"], TEXT="x")
    assert load(exact).tables["train"]["text"][0] != "x"
    with pytest.raises(DataError, match=r"data\.label"):
        load(make_table(["bad", "good"], LABEL="y").rename(columns={"label": "Label"}))


def test_a_target_beyond_all_others_is_named():
    numbers = list(np.arange(NUM_ROWS, dtype=float))
    assert not [w for w in load(make_table(numbers), "regression").facts.warnings if "times as far" in w]
    numbers[7] = 1e30
    found = load(make_table(numbers), "regression", test_share=0.1, validation_share=0.05, seed=1).facts.warnings
    said = [warning for warning in found if "times as far" in warning]
    assert len(said) == 1
    assert "train, id 7: the target " in said[0]


def test_a_label_that_nobody_sees_is_missing():
    table = make_table(["bad", "good", "\u200b"])
    with pytest.raises(DataError, match=r"expected a label, came none"):
        load(table)
    assert load(table, invalid="drop").labels.names == ("bad", "good")


def test_every_other_separator_is_named():
    table = make_table(["joy, anger", "joy", "anger", "joy|anger", "joy;anger", "joy"])
    said = [w for w in load(table, "multi_label").facts.warnings if "data.label_separator" in w]
    assert len(said) == 1
    assert "'|'" in said[0]
    assert "';'" in said[0]


def test_no_rows_are_no_rows():
    with pytest.raises(DataError, match=r"expected rows, came an empty list"):
        load_splits(DataConfig(), TaskConfig(), seed=0, source=[])


@pytest.mark.parametrize("pair", ["::", "||", ";;"])
def test_two_characters_between_cells_are_refused_by_name(pair, tmp_path):
    path = tmp_path / "table.csv"
    rows = [f"{text.replace(':', ' ')}{pair}{label}" for text, label in make_table(["bad", "good"]).to_numpy()]
    path.write_text("\n".join([f"text{pair}label", *rows]), encoding="utf-8")
    with pytest.raises(DataError, match="expected one character between cells, came"):
        load_splits(DataConfig(path=str(path)), TaskConfig(), seed=0)
    path.write_text("\n".join([f"text{pair[0]}label", *(row.replace(pair, pair[0]) for row in rows)]), encoding="utf-8")
    assert load_splits(DataConfig(path=str(path)), TaskConfig(), seed=0).labels.names == ("bad", "good")


def test_a_key_that_comes_twice_in_a_line_is_refused(tmp_path):
    path = tmp_path / "table.jsonl"
    lines = [f'{{"text": "a: {number}", "label": "{"ab"[number % 2]}"}}' for number in range(30)]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert load_splits(DataConfig(path=str(path)), TaskConfig(), seed=0).labels.names == ("a", "b")
    lines[4] = '{"text": "x", "label": "a", "label": "b"}'
    path.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(DataError, match=r"line 5: expected every key once, came 'label' twice"):
        load_splits(DataConfig(path=str(path)), TaskConfig(), seed=0)
