"""Which files are tables, by file suffix: the one list that reading, writing and messages derive from."""

import re
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

__all__ = [
    "COMPRESSIONS",
    "DELIMITED_KINDS",
    "OTHER_WAYS",
    "TABLE_KINDS",
    "TABLE_SUFFIXES",
    "WRITTEN_SUFFIXES",
    "TableName",
    "is_table_name",
    "name_delimiter",
    "read_delimiter",
    "split_table_name",
]

TableKind = Literal["delimited", "lines", "json", "parquet", "arrow", "workbook"]

TABLE_KINDS: dict[str, TableKind] = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".txt": "lines",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".xlsx": "workbook",
    ".xlsm": "workbook",
}
"""Every suffix that is read, and its kind. ``lines`` is a table with a header, or one text a line."""

TABLE_SUFFIXES = tuple(TABLE_KINDS)

DELIMITED_KINDS: tuple[TableKind, ...] = ("delimited", "lines")
"""Kinds whose cells are separated by a delimiter."""

TEXT_KINDS: tuple[TableKind, ...] = (*DELIMITED_KINDS, "json")

WRITTEN_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
"""Suffixes that are also written."""

COMPRESSIONS = {".gz": "gzip", ".bz2": "bzip2", ".xz": "xz", ".zst": "Zstandard"}
"""Suffixes after that of a text format, as in ``train.csv.gz``, and the names of the compressions."""

OTHER_WAYS = {
    ".xls": "Save it as .xlsx or .csv in a spreadsheet program.",
    ".xlsb": "Save it as .xlsx or .csv in a spreadsheet program.",
    ".ods": "Save it as .xlsx or .csv in a spreadsheet program.",
    ".zip": "Unpack it, and name the file or folder that was in it.",
    ".tar": "Unpack it, and name the file or folder that was in it.",
    ".pkl": "A pickle runs code when it is read: load it where you trust it, and write it as .parquet or .csv.",
    ".pickle": "A pickle runs code when it is read: load it where you trust it, and write it as .parquet or .csv.",
}
"""Suffixes of tables that are not read, and what the user can do instead."""

DELIMITER_NAMES = {"\t": "a tab", " ": "a space", "\x01": "U+0001", "\x1f": "U+001F"}

ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})")


@dataclass(frozen=True)
class TableName:
    """The parts of a file's name.

    Attributes:
        stem: The name without its suffixes.
        suffix: The suffix of the format, in lower case; empty where there is none.
        compression: The suffix of the compression, in lower case; empty where the file is not compressed.
    """

    stem: str
    suffix: str
    compression: str

    @property
    def kind(self) -> TableKind | None:
        """How the file is read; None for a file that is not read."""
        kind = TABLE_KINDS.get(self.suffix)
        return kind if not self.compression or kind in TEXT_KINDS else None


def split_table_name(path: str | PurePath) -> TableName:
    """Split a file's name into stem, suffix and compression.

    Example:
        >>> split_table_name("data/train.csv.gz")
        TableName(stem='train', suffix='.csv', compression='.gz')
        >>> split_table_name("train.parquet").kind, split_table_name("train.gz").kind
        ('parquet', None)
    """
    name = PurePath(path)
    compression = name.suffix.lower() if name.suffix.lower() in COMPRESSIONS else ""
    if compression:
        name = name.with_suffix("")
    return TableName(name.stem, name.suffix.lower(), compression)


def is_table_name(path: str | PurePath) -> bool:
    """Say whether a name has the suffix of a table, including formats that have to be converted first.

    Example:
        >>> is_table_name("a.csv.gz"), is_table_name("a.xls"), is_table_name("my.yaml")
        (True, True, False)
    """
    name = split_table_name(path)
    return name.kind is not None or name.suffix in OTHER_WAYS


def read_delimiter(text: str) -> str:
    r"""Read a delimiter as a user writes it.

    Args:
        text: One character, ``tab`` or ``\t``, or an escape such as ``\x1f`` for a character that no keyboard has.

    Returns:
        The character.

    Raises:
        ValueError: The text is not one character, or a character that cannot separate cells.

    Example:
        >>> read_delimiter(";"), read_delimiter("tab"), read_delimiter(r"\x1f")
        (';', '\t', '\x1f')
    """
    escape = ESCAPE.fullmatch(text)
    if escape:
        text = chr(int(escape[1] or escape[2], 16))
    text = "\t" if text.lower() in ("tab", "\\t") else text
    if len(text) != 1 or text in '"\r\n\0\ufeff' or "\ud800" <= text <= "\udfff":
        raise ValueError(r"expected one character between cells, such as ; or | or tab, and neither quote nor line end")
    return text


def name_delimiter(delimiter: str) -> str:
    r"""Name a delimiter in a form that a terminal can show.

    Example:
        >>> name_delimiter(";"), name_delimiter("\t")
        ('";"', 'a tab')
    """
    return DELIMITER_NAMES.get(delimiter, f'"{delimiter}"')
