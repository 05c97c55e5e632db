"""Tables that come in and go out around a prediction: one split of a folder, stdin, and files written whole."""

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from datasets import Dataset

from nlp_transfer.data.columns import TEXT_NAMES
from nlp_transfer.data.examples import find_example
from nlp_transfer.data.sources import open_source
from nlp_transfer.data.tables import TABLE_SUFFIXES, read_table
from nlp_transfer.data.textfiles import FIELD_LIMIT
from nlp_transfer.errors import DataError, OutputError, StorageError
from nlp_transfer.recipe.schema import DataConfig

__all__ = ["check_output", "read_split", "read_stdin", "write_table"]

FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


def check_output(out: Path | None, source: str, *, overwrite: bool) -> None:
    """Refuse an output that could not be written, before any work is done.

    Args:
        out: The file to write, or None for stdout.
        source: The input; never overwritten.
        overwrite: Whether a file of that name may be replaced.

    Raises:
        OutputError: The file exists, is a folder, has no known ending, or is the input.

    Example:
        >>> check_output(Path("new.xlsx"), "old.csv", overwrite=False)
        Traceback (most recent call last):
        nlp_transfer.errors.OutputError: --out: new.xlsx: expected a file ending in .csv, .tsv, .jsonl or .parquet.
    """
    if out is None:
        return
    if out.suffix.lower() not in FORMATS:
        raise OutputError(f"--out: {out}: expected a file ending in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}.")
    if out.is_dir():
        raise OutputError(f"--out: {out}: is a folder. Name a file in it.")
    if out.exists() and source != "-" and Path(source).exists() and out.samefile(source):
        raise OutputError(f"--out: {out}: is the input itself. Name another file.")
    if out.exists() and not overwrite:
        raise OutputError(f"--out: {out}: exists already. Name another file, or add --overwrite.")
    if not out.parent.is_dir():
        raise OutputError(f"--out: {out}: there is no folder {out.parent}. Make it first.")


def read_stdin(stream: TextIO) -> Dataset:
    r"""Read a table from a stream: jsonl, csv with a header that names a text column, or one text a line.

    Args:
        stream: Text.

    Returns:
        A table; lines become its column ``text``.

    Raises:
        DataError: Nothing came, or a line is not what the first one promised.

    Example:
        >>> read_stdin(io.StringIO("a joy to watch\na bore\n"))["text"][:]
        ['a joy to watch', 'a bore']
    """
    try:
        content = stream.read()
    except UnicodeDecodeError as error:
        raise DataError(f"stdin: is not {error.encoding} text. Convert it first.") from error
    # Not splitlines(), which also breaks at characters that belong to a text, such as U+2028.
    lines = content.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    filled = {number: line for number, line in enumerate(lines, start=1) if line.strip()}
    if not filled:
        raise DataError("stdin: expected texts, got nothing. Pipe a file in, or name one.")
    first = next(iter(filled.values()))
    if first.lstrip().startswith("{"):
        return _parse_json_lines(filled)
    if any(name.strip(' "').lower() in ("text", *TEXT_NAMES) for name in first.split(",")):
        return _parse_csv("\n".join(lines))
    return Dataset.from_dict({"text": list(filled.values())})


def _parse_csv(content: str) -> Dataset:
    """Parse rows below a header; every cell is text."""
    limit = csv.field_size_limit(FIELD_LIMIT)
    try:
        header, *rows = [row for row in csv.reader(io.StringIO(content), strict=True) if row]
    except csv.Error as error:
        raise DataError(
            f"stdin: expected csv, came: {error}. Write a quote inside a quoted cell twice, and close every quote."
        ) from error
    finally:
        csv.field_size_limit(limit)
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise DataError(
                f"stdin: row {number}: expected {len(header)} cells, got {len(row)}. Quote cells that hold commas."
            )
    if not rows:
        raise DataError("stdin: expected rows below the header, got the header only. Add rows.")
    if len(set(header)) < len(header):
        raise DataError(f"stdin: line 1: expected different column names, got {', '.join(header)}. Rename one.")
    return Dataset.from_dict({name: list(column) for name, column in zip(header, zip(*rows, strict=True), strict=True)})


def _parse_json_lines(lines: Mapping[int, str]) -> Dataset:
    """Parse one object a line."""
    rows = []
    for number, line in lines.items():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"stdin: line {number}: expected a JSON object: {error}. Write every row as one object on one line."
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"stdin: line {number}: expected a JSON object, got {type(row).__name__}. "
                'Write every row as {"text": ...} on one line.'
            )
        rows.append(row)
    names = list(dict.fromkeys(name for row in rows for name in row))
    try:
        return Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"stdin: a column holds values of several types: {error}. Write all values of a column alike."
        ) from error


def read_split(path: str, split: str, *, encoding: str = "utf-8") -> tuple[Dataset, str]:
    """Read one labelled table to evaluate on.

    Args:
        path: A file, a folder of splits, a bundled name or a Hub id.
        split: Which split; a file is read whole.
        encoding: Character encoding of csv, tsv and jsonl files.

    Returns:
        The table and how messages name it.

    Raises:
        DataError: There is no such table.
    """
    place = Path(path).expanduser()
    # Unlike Path's own, these raise no error for a name that is too long for the file system.
    is_folder, is_there = os.path.isdir(place), os.path.exists(place)
    if is_folder or (not is_there and find_example(path) is not None):
        folder = place if is_folder else find_example(path)
        assert folder is not None
        found = sorted(file for file in folder.iterdir() if file.stem == split and file.is_file())
        if len(found) == 1:
            return read_table(found[0], encoding=encoding), str(found[0])
        if len(found) > 1:
            raise DataError(f"{path}: has {found[0].name} and {found[1].name}. Name the file.")
    elif is_there or place.suffix.lower() in TABLE_SUFFIXES:
        return read_table(place, encoding=encoding), path
    source = open_source(DataConfig.model_validate({"path": path, "encoding": encoding}))
    if split not in source.tables:
        raise DataError(f"{path}: expected a split {split!r}, came: {', '.join(source.tables)}. Use --split.")
    return source.tables[split], source.where[split]


def write_table(table: Dataset, out: Path | None, stream: TextIO) -> None:
    """Write a table by its file ending, whole or not at all; csv to the stream where no file is named.

    Args:
        table: What to write; lists are written as JSON in csv cells.
        out: csv, tsv, jsonl or parquet.
        stream: Where csv goes in place of a file.

    Raises:
        StorageError: The disk is full or failing.
    """
    frame = table.to_pandas()
    suffix = out.suffix.lower() if out else ".csv"
    if suffix in (".csv", ".tsv"):
        for name in frame.columns:
            if frame[name].map(lambda value: hasattr(value, "tolist")).any():
                frame[name] = frame[name].map(lambda value: json.dumps(list(value), ensure_ascii=False))
    if out is None:
        frame.to_csv(stream, index=False)
        return
    aside = out.with_name(f".{out.name}.writing")
    try:
        if suffix == ".parquet":
            frame.to_parquet(aside, index=False)
        elif suffix == ".jsonl":
            frame.to_json(aside, orient="records", lines=True, force_ascii=False)
        else:
            frame.to_csv(aside, index=False, sep="\t" if suffix == ".tsv" else ",")
        aside.replace(out)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StorageError(f"{out}: could not be written: {error}. Free space and try again.") from error
