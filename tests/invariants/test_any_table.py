"""Whatever table comes: it is read to the letter, alike from every format, or refused in words that name the place."""

import contextlib
import io
import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from nlp_transfer import cli
from nlp_transfer.contracts import SPLITS, Splits
from nlp_transfer.data.load import load_splits
from nlp_transfer.errors import TransferError
from nlp_transfer.recipe.fields import list_keys, list_sections
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.runs.pipeline import prepare, run
from nlp_transfer.runs.seed import Workspace
from tests.any_table import FILE_FORMATS, UNSEEN, Layout, Sheet, layouts, put, sheets, takes

NUM_EXAMPLES = 100
NUM_SLOW = 5000
"""Each of two searches over tables, the one that loads and the one that predicts."""


@pytest.fixture(scope="module")
def encoder(tiny_encoder: Callable[..., Path]) -> Path:
    return tiny_encoder("bert")


@pytest.fixture(scope="module")
def artifact(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that knows two labels of three that tables may have."""
    rows = [(f"row {row} is here", ("bad", "good")[row % 2]) for row in range(40)]
    frame = pd.DataFrame(rows, columns=["text", "label"])
    settings = {"encoder": {"name": str(encoder)}, "training": {"max_steps": 1, "device": "cpu"}}
    settings |= {"evaluation": {"tfidf": False, "resamples": 100}}
    report = run(settings, data=frame, output_dir=tmp_path_factory.mktemp("any") / "run", progress=False)
    return Path(report.folder)


@contextlib.contextmanager
def new_folder() -> Iterator[Path]:
    """A folder for one example: what pytest gives is for all of them."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def attempt(work: Callable[[], Any]) -> tuple[Any, str]:
    """Do something; gives what came of it, or the words in which it was refused."""
    try:
        return work(), ""
    except TransferError as refused:
        return None, str(refused) or "refused without a word"


def load(source: object, keys: Sequence[str]) -> Splits:
    """Load as a run does."""
    path = [f"data.path={json.dumps(str(source))}"] if isinstance(source, Path) else []
    recipe = load_recipe({"strategy": {"kind": "full"}}, [*path, *keys])
    return load_splits(recipe.data, recipe.task, seed=0, source=None if path else source)


def list_rows(splits: Splits) -> dict[int, tuple[str, str]]:
    """Number of each row in its source, with its text and the name of its label."""
    found = {}
    for split in SPLITS:
        table = splits.tables[split]
        for number, text, label in zip(table["id"][:], table["text"][:], table["label"][:], strict=True):
            assert int(number) not in found, "a row stands in two splits"
            found[int(number)] = (text, splits.labels.names[label])
    return found


def check_place(message: str, source: object) -> None:
    """A message about a table names it."""
    name = source.name if isinstance(source, Path) else "data"
    assert name in message or message.startswith(("data.", "task.", "training.")), message
    assert ".." not in message.replace("...", ""), f"a full stop is doubled: {message}"


def check_loaded(sheet: Sheet, splits: Splits, names: Sequence[str] | None) -> None:
    """Every row is there or counted, with its own text and label."""
    facts, rows = splits.facts, list_rows(splits)
    assert sum(facts.rows.values()) == len(rows)
    dropped = facts.dropped.get("empty_text", 0) + facts.dropped.get("missing_label", 0)
    assert len(rows) + dropped == len(sheet.texts)
    for number, (text, label) in rows.items():
        assert text == sheet.texts[number]
        if names is not None:
            assert label == names[number]


def list_spelled(sheet: Sheet) -> list[str] | None:
    """The names of the labels row by row where they are texts that stay as they are: "true" is spelled "True"."""
    is_kept = isinstance(sheet.labels[0], str) and sheet.kind != "flags"
    return [str(label) for label in sheet.labels] if is_kept else None


def must_load(sheet: Sheet) -> bool:
    """Whether nothing is wrong with a table: no hole, and texts enough to draw splits from."""
    # Rows of one text stay together, and count for the class of the first.
    first_labels = dict(zip(reversed(sheet.texts), reversed(sheet.labels), strict=True)).values()
    counts = [list(first_labels).count(label) for label in set(first_labels)]
    holes = any(sheet.is_empty(row) or sheet.labels[row] is None for row in range(len(sheet.texts)))
    return (
        not holes
        and not set(sheet.texts) & set(UNSEEN)
        and len(counts) > 1
        and min(counts) >= 10
        and sheet.kind != "digits"
    )


def search_loading(sheet: Sheet, layout: Layout, other: Layout, invalid: str) -> None:
    """Load a table from two of its forms."""
    found = []
    for each in (layout, other):
        if not takes(each, sheet):
            continue
        with new_folder() as folder:
            source = put(sheet, each, folder)
            keys = [*sheet.keys, *each.keys, f"data.invalid={invalid}"]
            splits, refusal = attempt(lambda source=source, keys=keys: load(source, keys))
            if splits is None:
                assert not must_load(sheet), f"{each}: {refusal}"
                check_place(refusal, source)
                found.append(None)
            else:
                check_loaded(sheet, splits, list_spelled(sheet))
                found.append((splits.labels.names, list_rows(splits)))
    if len(found) == 2:
        assert found[0] == found[1], "two forms of one table differ"


LOADING = {"sheet": sheets(), "layout": layouts(), "other": layouts(), "invalid": st.sampled_from(("error", "drop"))}


@settings(max_examples=NUM_EXAMPLES)
@given(**LOADING)
def test_any_table_is_read_alike_from_two_formats_or_refused_by_name(sheet, layout, other, invalid):
    search_loading(sheet, layout, other, invalid)


@pytest.mark.slow
@settings(max_examples=NUM_SLOW)
@given(**LOADING)
def test_thousands_of_tables_are_read_alike_from_two_formats_or_refused_by_name(sheet, layout, other, invalid):
    search_loading(sheet, layout, other, invalid)


def call(*arguments: object) -> tuple[int, str, str]:
    """Run the command line in this process; gives status, stdout and stderr."""
    argv, hook = sys.argv, sys.excepthook
    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["nlp-transfer", *map(str, arguments)]
    status: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as leaving:
        status = leaving.code or 0
    finally:
        sys.argv, sys.excepthook = argv, hook
    return int(status), out.getvalue(), err.getvalue()


def search_prediction(artifact: Path, sheet: Sheet, layout: Layout, ending: str) -> None:
    """Predict and score a table by the command line."""
    if not takes(layout, sheet):
        return
    with new_folder() as folder:
        source, out = put(sheet, layout, folder), folder / f"out.{ending}"
        told = ["--encoding", layout.encoding] if layout.is_text else []
        status, _, said = call("predict", artifact, source, "-o", out, "--text", sheet.text, *told)
        assert "Traceback" not in said
        holes = [row for row in range(len(sheet.texts)) if sheet.is_empty(row)]
        if status:
            assert status == 2, said
            check_place(flatten(said), source)
            assert holes or not must_load(sheet), said
        else:
            assert not holes
            check_written(out, ending, sheet)
        arguments = [*told, "--text", sheet.text, "--label", sheet.label, "--json", "--metric", "accuracy"]
        status, shown, said = call("evaluate", artifact, source, *arguments)
        assert "Traceback" not in said
        if status:
            assert status == 2, said
            check_place(flatten(said), source)
            known = set(sheet.labels) <= {"bad", "good"}
            assert holes or not known or not must_load(sheet), said
        else:
            assert json.loads(shown)["accuracy"]["n"] == len(sheet.texts)


def flatten(said: str) -> str:
    """What was said, on one line."""
    return re.sub(r"\s+", " ", said).removeprefix("nlp-transfer: ")


def check_written(out: Path, ending: str, sheet: Sheet) -> None:
    """Every row is there, with what was predicted of it."""
    if ending == "parquet":
        table = pq.read_table(out)
        assert table[sheet.text].to_pylist() == list(sheet.texts)
        predicted = table["predicted"].to_pylist()
    elif ending == "jsonl":
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n") if line]
        assert [row[sheet.text] for row in rows] == list(sheet.texts)
        predicted = [row["predicted"] for row in rows]
    else:
        predicted = list(pd.read_csv(out, keep_default_na=False)["predicted"])
    assert len(predicted) == len(sheet.texts)
    assert set(predicted) <= {"bad", "good"}


PREDICTION = {
    "sheet": sheets(),
    "layout": layouts(FILE_FORMATS),
    "ending": st.sampled_from(("csv", "jsonl", "parquet")),
}


@settings(max_examples=NUM_EXAMPLES)
@given(**PREDICTION)
def test_any_table_is_predicted_row_by_row_or_refused_by_name(artifact, sheet, layout, ending):
    search_prediction(artifact, sheet, layout, ending)


@pytest.mark.slow
@settings(max_examples=NUM_SLOW)
@given(**PREDICTION)
def test_thousands_of_tables_are_predicted_row_by_row_or_refused_by_name(artifact, sheet, layout, ending):
    search_prediction(artifact, sheet, layout, ending)


VALUES = (
    *(
        "0",
        "1",
        "-1",
        "2.5",
        "1e-5",
        "1e999",
        "null",
        "true",
        "no",
        "two",
        '""',
        "[]",
        "[1, 2]",
        "[text]",
        "{}",
        "text",
    ),
    *(
        "99999999999999999999",
        "nan",
        "reviews",
        "full",
        "classification",
        "positive",
        "label",
        "'",
        "a: b",
        "[",
        "\t",
        "é",
    ),
)
"""What may stand behind the equals sign."""

KEYS = [f"{section}.{key}" for section in list_sections() for key in list_keys(section)]


@settings(max_examples=100)
@given(
    name=st.sampled_from(("sentiment/full", "topic/lora", "intent/few_shot", "quickstart")),
    changes=st.lists(
        st.tuples(st.sampled_from([*KEYS, "training.epoch", "strategy", "x.y", "methods"]), st.sampled_from(VALUES)),
        max_size=4,
    ),
)
def test_any_override_is_taken_or_refused_by_its_key(name, changes):
    texts = [f"{key}={value}" for key, value in changes]
    recipe, refusal = attempt(lambda: load_recipe(name, texts))
    if recipe is None:
        assert any(key.split(".")[-1] in refusal for key, _ in changes), refusal
    else:
        # A recipe that was taken is taken again as it was resolved.
        assert load_recipe(recipe.model_dump(mode="json")) == recipe


DATA_KEYS = (
    *("data.limit=5", "data.limit=1", "data.shots=2", "data.shots=50", "data.leaks=drop", "data.validation_share=0.5"),
    *("data.test_share=0.99", "data.max_length=4", "data.long_text=windows", "data.long_text=head_tail", "data.seed=3"),
    *(
        "data.invalid=drop",
        "data.id=id",
        "data.id=note",
        "task.kind=ordinal",
        "task.kind=regression",
        "data.text_b=note",
    ),
    *(
        "task.kind=multi_label",
        "data.label_separator=;",
        "data.permute_labels=true",
        "data.balance=note",
        "data.encoding=ascii",
    ),
    *("data.splits.test=train", "training.class_weights=balanced", 'task.labels=["bad", "good"]', "data.label=[ok]"),
)
"""Overrides that change what is loaded."""


@settings(max_examples=NUM_EXAMPLES)
@given(sheet=sheets(), layout=layouts(FILE_FORMATS), keys=st.lists(st.sampled_from(DATA_KEYS), max_size=3, unique=True))
def test_any_table_under_any_override_is_prepared_or_refused(encoder, sheet, layout, keys):
    if not takes(layout, sheet):
        return
    with new_folder() as folder:
        source = put(sheet, layout, folder)
        section = {"encoder": {"name": str(encoder)}, "data": {"path": str(source)}}

        def work() -> Workspace:
            recipe = load_recipe(section, [*sheet.keys, *layout.keys, *keys])
            return prepare(recipe, [0], None, Console(quiet=True))[0]

        space, refusal = attempt(work)
        assert (space is None) != (not refusal)
        if space is None:
            check_place(refusal, source)
        else:
            rows = space.splits.facts.rows
            assert [space.prepared.splits[split].num_examples for split in SPLITS] == [rows[split] for split in SPLITS]
