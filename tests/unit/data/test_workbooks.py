import datetime
import sys
import zipfile

import openpyxl
import pytest

from nlp_transfer.data.findings import Findings
from nlp_transfer.data.load import load_splits
from nlp_transfer.data.tables import read_table
from nlp_transfer.errors import DataError, MissingExtraError
from nlp_transfer.recipe.schema import DataConfig, TaskConfig

DAY, MOMENT = datetime.date(2024, 5, 1), datetime.datetime(2024, 5, 1, 12, 30)


def save(path, **sheets):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def test_cells_become_columns_of_the_type_that_all_of_them_have(tmp_path):
    header = ["text", "whole", "real", "truth", "day", "moment", "code", "mixed", "empty"]
    rows = [
        ["a", 1, 1.5, True, DAY, MOMENT, "007", 1.0, None],
        ["b", 2.0, 2, False, DAY, MOMENT, "1.10", "x", None],
        [None, None, None, None, None, None, None, DAY, None],
    ]
    table = read_table(save(tmp_path / "a.xlsx", only=[header, *rows]))
    assert table.to_dict() == {
        "text": ["a", "b", None],
        "whole": [1, 2, None],
        "real": [1.5, 2.0, None],
        "truth": [True, False, None],
        "day": [DAY, DAY, None],
        "moment": [MOMENT, MOMENT, None],
        "code": ["007", "1.10", None],
        "mixed": ["1", "x", "2024-05-01"],
        "empty": [None, None, None],
    }
    kinds = [table.features[name].dtype for name in header[:6]]
    assert kinds == ["string", "int64", "float64", "bool", "date32", "timestamp[us]"]


def test_rows_without_values_and_columns_without_names_are_no_riddle(tmp_path):
    rows = [[], [None, "text", None], [], ["1", "a b", "x"], ["  "], ["2", "c d"], [None, None]]
    assert read_table(save(tmp_path / "a.xlsx", only=rows)).to_dict() == {
        "unnamed_0": ["1", "2"],
        "text": ["a b", "c d"],
        "unnamed_2": ["x", None],
    }


def test_the_first_sheet_that_is_shown_is_read_and_said_and_another_can_be_named(tmp_path):
    path = save(tmp_path / "a.xlsx", hidden=[["text"], ["h"]], one=[["text"], ["a"]], two=[["text"], ["b"]])
    book = openpyxl.load_workbook(path)
    book["hidden"].sheet_state = "hidden"
    book.save(path)
    findings = Findings()
    assert read_table(path, findings=findings)["text"][:] == ["a"]
    assert findings.notes == [f"{path}: the sheet 'one' was read, of hidden, one, two. Name another with data.sheet."]
    assert read_table(path, sheet="two")["text"][:] == ["b"]
    with pytest.raises(DataError, match=r"data\.sheet: expected a sheet of .*came 'tow'; there are: hidden, one, two"):
        read_table(path, sheet="tow")


def test_a_header_that_comes_again_is_left_out_and_counted(tmp_path):
    findings = Findings()
    rows = [["text", "n"], ["a", 1], ["text", "n"], ["b", 2]]
    table = read_table(save(tmp_path / "a.xlsx", only=rows), findings=findings)
    assert table.to_dict() == {"text": ["a", "b"], "n": [1, 2]}
    assert findings.dropped == {"repeated_header": 1}
    assert "sheet only: 1 row repeats the header and was left out (row 2)" in findings.warnings[0]


def test_a_run_reads_a_workbook_as_it_reads_a_csv(tmp_path):
    rows = [(f"text number {n}", n % 2) for n in range(20)]
    save(tmp_path / "a.xlsx", first=[["none"]], second=[["text", "label"], *rows])
    (tmp_path / "a.csv").write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    book, plain = (
        load_splits(DataConfig(path=str(tmp_path / name), sheet="second"), TaskConfig(), seed=0)
        for name in ("a.xlsx", "a.csv")
    )
    assert book.labels == plain.labels
    for split in ("train", "validation", "test"):
        assert book.tables[split].to_dict() == plain.tables[split].to_dict()


def pack(path, **files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


BROKEN = {
    "text": (lambda path: path.write_text("text,label\n"), "came a cut one or another file"),
    "another archive": (lambda path: pack(path, notes="x"), "came a broken one"),
    "a password": (lambda path: path.write_bytes(b"\xd0\xcf\x11\xe0 and more"), "came one with a password, or an old"),
    "an empty sheet": (lambda path: save(path, only=[]), "came an empty sheet"),
    "a header": (lambda path: save(path, only=[["text", "label"]]), "came the header only"),
    "a name twice": (lambda path: save(path, only=[["text", "text"], ["a", "b"]]), "came twice: text"),
    "half a file": (lambda path: path.write_bytes(save(path, only=[["a"]]).read_bytes()[:900]), "came a cut one"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_workbook_is_named_with_the_way_out(tmp_path, case):
    make, expected = BROKEN[case]
    make(tmp_path / "a.xlsx")
    with pytest.raises(DataError, match=expected) as caught:
        read_table(tmp_path / "a.xlsx")
    assert str(tmp_path / "a.xlsx") in str(caught.value)


def test_a_workbook_that_unpacks_to_very_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("nlp_transfer.data.textfiles.SMALLEST_BOMB_BYTES", 1 << 10)
    monkeypatch.setattr("nlp_transfer.data.textfiles.MOST_GROWTH", 1)
    with pytest.raises(DataError, match="expected a workbook in proportion to its file"):
        read_table(save(tmp_path / "a.xlsx", only=[["text"], *[["a"]] * 1000]))


def test_without_openpyxl_the_extra_is_named(tmp_path, monkeypatch):
    save(tmp_path / "a.xlsx", only=[["text"], ["a"]])
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r"reading Excel workbooks needs openpyxl.*nlp_transfer\[excel\]"):
        read_table(tmp_path / "a.xlsx")
