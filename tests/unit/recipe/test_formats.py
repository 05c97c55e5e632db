import pytest

from nlp_transfer.data import exchange
from nlp_transfer.errors import RecipeError
from nlp_transfer.recipe.formats import (
    COMPRESSIONS,
    OTHER_WAYS,
    TABLE_KINDS,
    TABLE_SUFFIXES,
    WRITTEN_SUFFIXES,
    is_table_name,
    read_delimiter,
    split_table_name,
)
from nlp_transfer.recipe.load import list_dropped, load_recipe, recipe_to_yaml
from nlp_transfer.recipe.yaml12 import parse_yaml


def test_every_ending_that_is_read_or_refused_as_a_table_is_no_recipe(tmp_path):
    endings = [*TABLE_SUFFIXES, *OTHER_WAYS, ".csv.gz", ".jsonl.zst", ".TSV.BZ2"]
    for ending in endings:
        (tmp_path / f"a{ending}").write_text("text\n")
        with pytest.raises(RecipeError, match="got a table"):
            load_recipe(tmp_path / f"a{ending}")
    assert len(endings) >= 18
    assert set(WRITTEN_SUFFIXES) <= set(TABLE_SUFFIXES)
    assert exchange.WRITTEN_SUFFIXES is WRITTEN_SUFFIXES


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_text_formats_alone_are_read_compressed(compression):
    read = {suffix for suffix in TABLE_SUFFIXES if split_table_name(f"a{suffix}{compression}").kind}
    assert read == {suffix for suffix, kind in TABLE_KINDS.items() if kind in ("delimited", "lines", "json")}
    assert not is_table_name(f"a{compression}")


WRITTEN = {";": ";", "tab": "\t", "TAB": "\t", "\\t": "\t", "\t": "\t", "\\x1f": "\x1f", "\\u0001": "\x01", "~": "~",
           "'": "'", "';'": ";", " ": " ", "null": None, "": None}  # fmt: skip


@pytest.mark.parametrize("text", WRITTEN)
def test_a_delimiter_is_read_as_a_person_writes_it_and_survives_the_run_s_own_recipe(text):
    recipe = load_recipe({}, [f"data.delimiter={text}"])
    assert recipe.data.delimiter == WRITTEN[text]
    assert load_recipe(parse_yaml(recipe_to_yaml(recipe))).data.delimiter == WRITTEN[text]
    assert load_recipe({"data": {"delimiter": WRITTEN[text]}}).data.delimiter == WRITTEN[text]


@pytest.mark.parametrize("text", ["ab", '"', "\n", "\r", "\0", "\ufeff", "\\xx", "\\ud800"])
def test_what_cannot_stand_between_cells_is_refused(text):
    with pytest.raises(ValueError, match="expected one character between cells"):
        read_delimiter(text)
    with pytest.raises(RecipeError, match=r"data\.delimiter: expected one character between cells") as caught:
        load_recipe({"data": {"delimiter": text}})
    assert "Value error" not in str(caught.value)


def test_delimiter_and_sheet_belong_to_the_file_they_were_written_for():
    recipe = {"data": {"path": "a.csv", "delimiter": ";", "sheet": "one"}}
    data = load_recipe(recipe, ["data.path=b.csv"]).data
    assert (data.delimiter, data.sheet) == (None, None)
    assert "data.delimiter=;, data.sheet=one" in list_dropped(recipe, ["data.path=b.csv"])[0]
