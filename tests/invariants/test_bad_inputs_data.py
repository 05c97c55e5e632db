"""Data that cannot be used is refused: status 2, the place and the way out named, nothing left, nothing harmed."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from tests.bad_inputs import Case, check_counted, check_refused, make_csv, make_rows, make_run, write

ROWS = make_rows()
GOOD = make_csv(ROWS)


def csv_case(name: str, content: str | bytes, words: tuple[str, ...], *more: str, file: str = "d.csv") -> Case:
    """A single file that is read as train."""
    return Case(name, write(file, content), make_run(file, *more), words)


def splits_case(name: str, files: dict[str, str], words: tuple[str, ...], *more: str) -> Case:
    """A folder of splits."""

    def make(folder: Path) -> None:
        for file, content in files.items():
            write(f"splits/{file}", content)(folder)

    return Case(name, make, make_run("splits", *more), words)


def json_case(name: str, rows: Sequence[Any], words: tuple[str, ...], *more: str) -> Case:
    """A file of JSON lines."""
    content = "".join(json.dumps(row) + "\n" for row in rows)
    return Case(name, write("d.jsonl", content), make_run("d.jsonl", *more), words)


def save_parquet(frame: Callable[[], pd.DataFrame]) -> Callable[[Path], None]:
    """A function that writes a frame as ``d.parquet``."""
    return lambda folder: frame().to_parquet(folder / "d.parquet", index=False)


def save_hub_like(folder: Path) -> None:
    """Splits whose ``ClassLabel`` declares the names in different orders."""
    texts, ids = [text for text, _ in ROWS], [0, 1] * 6
    tables = {}
    for split, names in {"train": ["bad", "good"], "validation": ["good", "bad"], "test": ["bad", "good"]}.items():
        features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
        tables[split] = Dataset.from_dict({"text": [f"{split} {t}" for t in texts], "label": ids}, features=features)
    DatasetDict(tables).save_to_disk(str(folder / "saved"))


def save_multi_label(folder: Path) -> None:
    """Lists of label ids of which one is beyond the names that are declared."""
    features = Features({"text": Value("string"), "label": List(Value("int64"))})
    table = Dataset.from_dict({"text": [text for text, _ in ROWS], "label": [[0], [1, 2]] * 6}, features=features)
    table.to_parquet(folder / "d.parquet")


def forbid_reading(patch: pytest.MonkeyPatch) -> None:
    """Make the table unreadable, whoever runs the tests."""
    original = Path.open

    def refuse(path: Path, *args: Any, **kwargs: Any) -> Any:
        if path.name == "d.csv":
            raise PermissionError(13, "Permission denied", str(path))
        return original(path, *args, **kwargs)

    patch.setattr(Path, "open", refuse)


def cut_parquet(folder: Path) -> None:
    """Half a parquet file."""
    path = folder / "d.parquet"
    pd.DataFrame(ROWS, columns=["text", "label"]).to_parquet(path)
    path.write_bytes(path.read_bytes()[:200])


def with_row(text: str, label: str) -> str:
    """The good table with one more row, its 13th."""
    return make_csv([*ROWS, (text, label)])


NESTED = [{"text": text, "label": {"name": label}} for text, label in ROWS]
MIXED = [{"text": text, "label": label} for text, label in ROWS] + [{"text": "one more", "label": 1}]
LISTS = [{"text": text, "label": [label]} for text, label in ROWS]
OBJECTS = [{"text": {"body": text}, "label": label} for text, label in ROWS]
SPLITS = {"train.csv": GOOD, "validation.csv": GOOD.replace("text", "words"), "test.csv": GOOD}
SPLITS["validation.csv"] = SPLITS["validation.csv"].replace("words,", "text,", 1)

CASES = [
    # Files that are no tables.
    csv_case("an empty file", "", ("d.csv", "empty file", "Fill it")),
    csv_case("a header and no rows", "text,label\n", ("d.csv", "header only", "Add rows")),
    csv_case("only line breaks", "\n\n\n", ("d.csv", "expected", "empty")),
    csv_case("bytes of another encoding", GOOD.encode() + b"caf\xe9 was closed,bad\n",
             ("d.csv, line 14", "0xe9", "data.encoding=cp1252")),
    csv_case("utf-16", GOOD.encode("utf-16"), ("d.csv, line 1", "data.encoding=utf-16")),
    csv_case("an encoding that does not exist", GOOD, ("data.encoding", "'utf-9'", "Use utf-8"),
             "data.encoding=utf-9"),
    csv_case("a null byte", GOOD + "a\0b,bad\n", ("d.csv, line 14", "null byte", "Remove it")),
    csv_case("a ragged row", GOOD + "one, two, three,bad\n", ("d.csv, line 14", "expected 2 cells", "quotes around")),
    csv_case("a quote that is never closed", GOOD + '"no end,bad\n', ("d.csv, line 14", "closing quote", "Close")),
    csv_case("text after a closing quote", GOOD + '"a "b" c",bad\n', ("d.csv, line 14", "quotes", "twice")),
    csv_case("a column twice", "text,label,text\na,bad,b\n", ("d.csv, line 1", "twice: text", "Rename")),
    csv_case("an unknown ending", GOOD, ("d.docx", "'.docx'", "convert"), file="d.docx"),
    csv_case("text called xlsx", GOOD, ("d.xlsx", "whole Excel workbook", "ending of its format"), file="d.xlsx"),
    csv_case("an old workbook", b"\xd0\xcf\x11\xe0", ("d.xls", "'.xls'", "Save it as .xlsx or .csv"), file="d.xls"),
    csv_case("text called gz", GOOD, ("d.csv.gz", "whole file of gzip", "take .gz off its name"), file="d.csv.gz"),
    csv_case("a delimiter of two characters", GOOD, ("data.delimiter", "one character", '";;"'), "data.delimiter=;;"),
    csv_case("a delimiter that the header lacks", GOOD, ("d.csv", "columns: text,label", "data.delimiter"),
             "data.delimiter=|"),
    splits_case("a shard that is missing", {"train-00001-of-00002.csv": GOOD, "test.csv": GOOD},
                ("splits", "missing train-00000-of-00002.csv", "Fetch")),
    csv_case("no ending", GOOD, ("table", "no ending", "Rename"), file="table"),
    csv_case("a spreadsheet called csv", b"PK\x03\x04\x14\0", ("d.csv", "another zip file", "of its format")),
    csv_case("json lines that stop half way", '{"text": "a", "label": "bad"}\n{"text": "b", ',
             ("d.jsonl, line 2", "no JSON", "one object on one line"), file="d.jsonl"),
    csv_case("one json list in place of lines", json.dumps(LISTS, indent=1), ("d.json, line 1", "JSON", "one object"),
             file="d.json"),
    json_case("json lines of lists", [list(row) for row in ROWS], ("d.jsonl, line 1", "a list", '{"text"')),
    Case("half a parquet file", cut_parquet, make_run("d.parquet"), ("d.parquet", "whole Parquet", "Write it again")),
    csv_case("text called arrow", GOOD, ("d.arrow", "whole Arrow", "Write it again"), file="d.arrow"),
    Case("a folder called csv", lambda folder: (folder / "d.csv").mkdir(), make_run("d.csv"),
         ("d.csv", "a file, came a folder", "Name the file itself")),
    Case("a file that may not be read", write("d.csv", GOOD), make_run("d.csv"),
         ("d.csv", "permission denied", "Change its permissions"), forbid_reading),
    json_case("numbers too large to keep in place of texts", [{"text": 10**30, "label": "a"}],
              ("d.jsonl", "expected texts in column 'text'", "numbers")),
    # Nothing there.
    Case("a link that leads nowhere", lambda folder: (folder / "d.csv").symlink_to("gone.csv"), make_run("d.csv"),
         ("data.path", "'d.csv', which leads to nothing", "Mend the link")),
    Case("no such file", write("dates.csv", GOOD), make_run("data.csv"), ("data.path", "'data.csv'", '"dates.csv"')),
    Case("a file with too long a name", write("x.csv", GOOD), make_run("a" * 300 + ".csv"),
         ("data.path", "aaaa", "Check the name")),
    Case("a bundled name with a letter missing", write("x.csv", GOOD), make_run("reviws"),
         ("data.path", "'reviws'", 'the bundled "reviews"')),
    Case("a mistyped folder while offline", write("data/tickets/train.csv", GOOD), make_run("data/tickest"),
         ("data.path", "no file or folder here", '"data/tickets"')),
    Case("a data set of the Hub while offline", write("x.csv", GOOD), make_run("stanfordnlp/sst2"),
         ("data.path", "HF_HUB_OFFLINE", "data.path=FOLDER")),
    # Splits.
    splits_case("no train split", {"validation.csv": GOOD, "test.csv": GOOD},
                ("splits", "train split, came: validation, test", "Add train.csv")),
    splits_case("no split at all", {"notes.txt": "nothing"}, ("splits", "notes.txt", "rename the files to train.csv")),
    splits_case("two validation splits", {"train.csv": GOOD, "val.csv": GOOD, "dev.csv": GOOD},
                ("splits", "dev, val", "data.splits.validation")),
    splits_case("two train files", {"train.csv": GOOD, "train.jsonl": '{"text": "a", "label": "bad"}\n'},
                ("splits", "train.csv, train.jsonl", "Keep one")),
    splits_case("a split that is not there", SPLITS, ("data.splits.test", "'tset'", 'Did you mean "test"?'),
                "data.splits.test=tset"),
    csv_case("splits of a single file", GOOD, ("data.splits", "single file d.csv", "Remove data.splits"),
             "data.splits.test=test"),
    splits_case("a label in test that train does not have", SPLITS | {"test.csv": with_row("new", "ugly")},
                ("splits/test.csv, row 13", '"ugly"', "Correct the labels")),
    splits_case("a label in validation that train does not have", SPLITS | {"validation.csv": with_row("new", "ugly")},
                ("splits/validation.csv, row 13", '"ugly"', "train with rows of that class")),
    splits_case("validation without labels", SPLITS | {"validation.csv": "text\nnew words\n"},
                ("splits/validation.csv", "expected labels in label", "Fill the column")),
    splits_case("validation without the text column", SPLITS | {"validation.csv": "body,label\nnew words,bad\n"},
                ("splits/validation.csv", "'text'", "Name one of those")),
    splits_case("an empty text in test", SPLITS | {"test.csv": with_row("", "bad")},
                ("splits/test.csv", "a text, came none in 1 row (13)", "data.invalid=drop")),
    Case("labels declared in another order", save_hub_like, make_run("saved"),
         ("saved, validation", '"bad", "good" in this order', "Bring them into the expected order")),
    csv_case("too few rows to draw splits", make_csv(ROWS[:2]), ("d.csv", "draw a", "Add rows")),
    csv_case("a class for every text", make_csv([(text, text) for text, _ in ROWS]),
             ("d.csv", "12 classes of one text each", "data.label")),
    # Columns.
    csv_case("no text column", make_csv(ROWS, ("a", "label")).replace("text", "1")
             .replace(",label", ",b,label").replace("here,", "here,there,"),
             ("d.csv", "a, b, label", "Name it with data.text")),
    csv_case("no label column", make_csv(ROWS, ("text", "mood")), ("d.csv", "text, mood", "data.label")),
    csv_case("a text column that is not there", GOOD, ("data.text", "'txt'", 'Did you mean "text"?'), "data.text=txt"),
    csv_case("a label column that is not there", GOOD, ("data.label", "'lable'", 'Did you mean "label"?'),
             "data.label=lable"),
    csv_case("an id column that is not there", GOOD, ("data.id", "'uuid'", "there are: text, label"), "data.id=uuid"),
    csv_case("two columns that may be the text", "review,tweet,label\na b,c d,bad\n",
             ("d.csv", "review, tweet", "Choose with data.text")),
    csv_case("no second text of a pair", GOOD, ("data.text_b", "'hypothesis'", "Name one of those"),
             "data.text=text", "data.text_b=hypothesis"),
    csv_case("an empty second text", "text,text_b,label\na,b,bad\nc,,good\n", ("d.csv", "1 row (2)", "Fill or remove")),
    csv_case("numbers in place of texts", "text,label\n" + "".join(f"{n},{n % 2}\n" for n in range(12)),
             ("d.csv", "numbers only", "data.text")),
    Case("a column of numbers as text",
         save_parquet(lambda: pd.DataFrame({"text": range(12), "label": ["bad", "good"] * 6})), make_run("d.parquet"),
         ("d.parquet", "came numbers", "Write them as text")),
    json_case("texts that are objects", OBJECTS, ("d.jsonl", "nested values", "data.text")),
    # Labels.
    csv_case("an empty text", with_row("", "bad"), ("d.csv", "a text, came none in 1 row (13)", "data.invalid=drop")),
    csv_case("a text of spaces", with_row("   ", "bad"), ("d.csv", "1 row (13)", "data.invalid=drop")),
    csv_case("missing labels", make_csv([*ROWS, ("a", ""), ("b", "")]),
             ("d.csv", "a label, came none in 2 rows (13, 14)", "data.invalid=drop")),
    Case("labels that are NaN",
         save_parquet(lambda: pd.DataFrame({"text": [t for t, _ in ROWS], "label": [0.0, 1.0, float("nan")] * 4})),
         make_run("d.parquet"), ("d.parquet", "a label, came none in 4 rows (3, 6, 9, 12)", "data.invalid=drop")),
    csv_case("no label at all", make_csv([(text, "") for text, _ in ROWS]), ("d.csv", "labels in label", "Fill the")),
    csv_case("one class only", make_csv([(text, "bad") for text, _ in ROWS]),
             ("d.csv", "at least two classes", "Add rows of another class")),
    json_case("labels of mixed types", MIXED, ("d.jsonl, line 13", "a number after text", "alike")),
    json_case("labels that are objects", NESTED, ("d.jsonl", "'label'", "Flatten it")),
    json_case("lists of labels for one label", LISTS, ("d.jsonl", "'label'", "task.kind=multi_label")),
    csv_case("fractions in place of classes", make_csv([(text, f"{n}.5") for n, (text, _) in enumerate(ROWS)]),
             ("d.csv, row 1", "0.5", "task.kind=regression")),
    csv_case("a word among a regression's numbers", make_csv([("a b", "1.5"), ("b c", "fine")]),
             ("d.csv, row 2", "'fine'", "Correct it"), "task.kind=regression"),
    csv_case("an infinite target", make_csv([("a b", "1.5"), ("b c", "1e999")]),
             ("d.csv, row 2", "infinity", "Correct it"), "task.kind=regression"),
    csv_case("names without an order", GOOD, ("d.csv", "an order for task.kind=ordinal", "task.labels"),
             "task.kind=ordinal"),
    csv_case("a label that task.labels does not name", with_row("a b", "ugly"), ("d.csv, row 13", '"ugly"', "Correct"),
             "task.labels=[bad, good]"),
    Case("label ids beyond the names", save_multi_label,
         make_run("d.parquet", "task.kind=multi_label", "task.labels=[joy, anger]"),
         ("d.parquet, row 1", '"joy", "anger"', "Correct the labels")),
    csv_case("a 2 in a 0/1 column", "text,joy,anger\na b,1,0\nb c,0,2\n", ("d.csv, row 2", "0 or 1 in 'anger'", "Corr"),
             "task.kind=multi_label", "data.label=[joy, anger]"),
    json_case("0/1 lists without names", [{"text": text, "label": [n % 2, 1, 0]} for n, (text, _) in enumerate(ROWS)],
              ("d.jsonl", "each of the 3 places", "Name them in their order in task.labels"), "task.kind=multi_label"),
    json_case("0/1 lists with too few names", [{"text": text, "label": [1, 1, 0]} for text, _ in ROWS],
              ("d.jsonl", "each of the 3 places", "came 2 names"), "task.kind=multi_label", "task.labels=[joy, anger]"),
    csv_case("a list without quotes in a cell", 'text,label\na b,"[""joy""]"\nb c,"[joy, anger]"\n',
             ("d.csv, row 2", "'[joy, anger]'", "Write the names in quotes"), "task.kind=multi_label"),
    csv_case("a rare -1 among class numbers", make_csv([(f"text {n}", str(n % 2)) for n in range(40)] + [("a", "-1")]),
             ("d.csv", "a label, came none (-1) in 1 row (41)", "data.invalid=drop")),
    splits_case("validation without any of many labels",
                {"train.csv": "text,label\na,x\nb,y\n", "validation.csv": "text,label\nc,\nd,\n"},
                ("splits/validation.csv", "labels in label, came none in the whole split", "Fill the column"),
                "task.kind=multi_label"),
    csv_case("a limit that leaves one class", make_csv([*ROWS[:1], *[(f"{t}!", "good") for t, _ in ROWS * 2]])
             .replace("text number 0", "zero", 1), ("data.limit", "leaves one", "Raise it"), "data.limit=1"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_bad_data_is_refused_with_its_place_and_the_way_out(
    case: Case,
    work_dir: Path,
    tiny_encoder: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(tiny_encoder(), work_dir / "encoder")
    check_refused(case, work_dir, monkeypatch, capsys)


def test_every_case_is_run(request: pytest.FixtureRequest) -> None:
    check_counted(CASES, request, at_least=77)
