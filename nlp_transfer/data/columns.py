"""Which columns hold the texts and the labels, and whether they hold what they should."""

import difflib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Value

from nlp_transfer.contracts import TaskKind
from nlp_transfer.data.arrow_types import describe_column
from nlp_transfer.data.checks import find_visible, name_invisible
from nlp_transfer.data.delimited import offer_delimiter
from nlp_transfer.data.spelling import is_bytes, spell_column
from nlp_transfer.data.tables import explain_unusable, get_arrow_table, store_table
from nlp_transfer.data.textfiles import name_rows
from nlp_transfer.data.usual_names import ID_NAMES, LABEL_NAMES, PAIR_NAMES, TEXT_NAMES
from nlp_transfer.errors import DataError

__all__ = [
    "build_columns",
    "describe_empty",
    "find_empty_rows",
    "find_label_columns",
    "find_text_columns",
    "prepare_inference_table",
]

RESERVED = ("id", "text", "text_b", "label")


def find_text_columns(
    table: Dataset, *, text: str | None, text_b: str | None, where: str
) -> tuple[str, str | None, list[str]]:
    """Find the column of the text and, for pairs, of the second text.

    Args:
        table: The table.
        text: What ``data.text`` says; found by the usual names where absent.
        text_b: What ``data.text_b`` says.
        where: The table, for messages.

    Returns:
        The two columns (the second None where a row holds one text), and notes for the user.

    Raises:
        DataError: A named column is missing, none is found, or several could be meant.

    Example:
        >>> table = Dataset.from_dict({"Review": ["a joy"], "label": ["good"]})
        >>> find_text_columns(table, text=None, text_b=None, where="reviews.csv")
        ('Review', None, [])
    """
    for key, name in (("data.text", text), ("data.text_b", text_b)):
        if name is not None:
            _require_column(table, name, key=key, where=where)
    if text is not None:
        if text == text_b:
            raise DataError(f"data.text_b: expected another column than data.text, came {text!r} twice. Name another.")
        return text, text_b, []
    names = _fold_names([name for name in table.column_names if name != text_b])
    if text_b is None:
        pairs = [(names[a], names[b]) for a, b in PAIR_NAMES if a in names and b in names]
        if len(pairs) > 1:
            raise DataError(_explain_several(where, "pair of texts", [" + ".join(pair) for pair in pairs], "data.text"))
        if pairs:
            return *pairs[0], []
    if "text" in names:
        _refuse_alike(table, names["text"], where, "column of texts", "data.text")
        return names["text"], text_b, []
    found = [names[name] for name in TEXT_NAMES if name in names]
    strings = [name for name in found if _holds_strings(table, name)]
    if len(strings) > 1:
        raise DataError(_explain_several(where, "column of texts", strings, "data.text"))
    if found:
        chosen = (strings or found)[0]
        _refuse_alike(table, chosen, where, "column of texts", "data.text")
        return chosen, text_b, []
    labels = ("label", "labels", "label_text", *LABEL_NAMES)
    left = [names[n] for n in names if n not in labels and n not in ID_NAMES and _holds_strings(table, names[n])]
    left = [name for name in left if explain_unusable(table, name) is None] or left
    if len(left) == 1:
        return left[0], text_b, [f'The texts are taken from "{left[0]}", the only column of texts.']
    raise DataError(
        f"{where}: expected a column of texts (text, sentence, review, ...), came the columns: "
        f"{_list_columns(table)}. Name it with data.text.{offer_delimiter(where)}"
    )


def find_label_columns(
    table: Dataset, *, label: str | list[str] | None, kind: TaskKind, texts: Sequence[str | None], where: str
) -> list[str]:
    """Find the column of the labels, or check the columns that the recipe names.

    Args:
        table: The table.
        label: What ``data.label`` says; found by the usual names where absent.
        kind: The task.
        texts: Columns that are taken already.
        where: The table, for messages.

    Returns:
        One column; several only for multi_label. Empty where none is named and none is found.

    Raises:
        DataError: A named column is missing, or several could be meant.
    """
    if isinstance(label, list) and kind != "multi_label":
        raise DataError(
            f"data.label: expected one column for task.kind={kind}, came a list. "
            "Name one column, or say task.kind=multi_label."
        )
    if label is not None:
        columns = label if isinstance(label, list) else [label]
        if not columns or len(set(columns)) < len(columns):
            raise DataError(f"data.label: expected different columns, came {columns}. Name each once.")
        for name in columns:
            _require_column(table, name, key="data.label", where=where)
            _require_usable(table, name)
            if name in texts:
                raise DataError(f"data.label: expected another column than the texts, came {name!r}. Name another.")
        return columns
    names = _fold_names([name for name in table.column_names if name not in texts])
    for tier in (("label", "labels"), ("label_text",), LABEL_NAMES):
        found = [names[name] for name in tier if name in names]
        if len(found) > 1:
            raise DataError(_explain_several(where, "column of labels", found, "data.label"))
        if found:
            _refuse_alike(table, found[0], where, "column of labels", "data.label")
            _require_usable(table, found[0])
            return found
    return []


def _fold_names(columns: Sequence[str]) -> dict[str, str]:
    """Column names by their lower-case form; an exact name wins over one that differs in case."""
    return {name.strip().lower(): name for name in sorted(columns, key=lambda name: name == name.lower())}


def _refuse_alike(table: Dataset, chosen: str, where: str, what: str, key: str) -> None:
    """Refuse to choose between columns that differ in case alone, where none is the usual name to the letter."""
    alike = [name for name in table.column_names if name.strip().lower() == chosen.strip().lower()]
    if len(alike) > 1 and chosen != chosen.lower():
        raise DataError(_explain_several(where, what, alike, key))


def _require_column(table: Dataset, name: str, *, key: str, where: str) -> None:
    """Refuse a name that is no column, with the nearest one."""
    if name not in table.column_names:
        near = difflib.get_close_matches(name.lower(), [other.lower() for other in table.column_names], n=1)
        actual = next((other for other in table.column_names if near and other.lower() == near[0]), None)
        hint = f' Did you mean "{actual}"?' if actual else " Name one of those."
        raise DataError(
            f"{key}: expected a column of {where}, came {name!r}; there are: {_list_columns(table)}.{hint}"
            f"{offer_delimiter(where)}"
        )


def _require_usable(table: Dataset, name: str) -> None:
    """Refuse a column that was kept as text because its values are of several types."""
    reason = explain_unusable(table, name)
    if reason is not None:
        raise DataError(reason)


def _list_columns(table: Dataset) -> str:
    """The columns of a table, cut where they are long or many: a file without a header has texts there."""
    names = [name if len(name) <= 40 else f"{name[:40]}..." for name in table.column_names]
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")


def _explain_several(where: str, what: str, found: Sequence[str], key: str) -> str:
    """Say that the recipe has to choose."""
    return f"{where}: expected one {what}, came several: {', '.join(found)}. Choose with {key}."


def _holds_strings(table: Dataset, name: str) -> bool:
    """Whether a column is of text."""
    feature = table.features[name]
    if not isinstance(feature, Value) or feature.dtype not in ("string", "large_string", "string_view"):
        return False
    return describe_column(table.data.table.schema.field(name)) is None


def build_columns(
    table: Dataset, *, text: str, text_b: str | None, label: Sequence[str] | None, id_column: str | None, where: str
) -> tuple[pa.Table, Features]:
    """Bring a table into the package's form: ``id``, ``text``, ``text_b``, then what else there is.

    Args:
        table: The table as it was read.
        text: Column of the text.
        text_b: Column of the second text, for pairs.
        label: Columns of the labels; they are left out. None for a table that will get no ``label`` column: one
            that it has stays as it is.
        id_column: Column that names each row; row numbers from 0 where absent.
        where: The table, for messages.

    Returns:
        The columns, and what they are for `datasets`. A column that would take one of the reserved names is kept
        as ``source_<name>``.

    Raises:
        DataError: A column is missing or holds something else than texts.
    """
    arrow = get_arrow_table(table)
    columns: dict[str, pa.ChunkedArray] = {"id": _build_ids(table, arrow, id_column, where)}
    columns["text"] = _read_texts(table, arrow, text, key="data.text", where=where)
    if text_b is not None:
        columns["text_b"] = _read_texts(table, arrow, text_b, key="data.text_b", where=where)
    features = {name: Value("string") for name in columns}
    reserved = RESERVED[:-1] if label is None else RESERVED
    for name in table.column_names:
        if name in (text, text_b, id_column) or name in (label or ()):
            continue
        kept = name
        while kept in reserved or kept in columns or (kept != name and kept in table.column_names):
            kept = f"source_{kept}"
        columns[kept], features[kept] = arrow[name], table.features[name]
        if pa.types.is_string(arrow[name].type):
            features[kept] = Value("string")
    return pa.table(columns), Features(features)


def _build_ids(table: Dataset, arrow: pa.Table, id_column: str | None, where: str) -> pa.ChunkedArray:
    """The name of each row as text."""
    if id_column is None:
        return pa.chunked_array([pa.array(np.arange(arrow.num_rows)).cast(pa.string())])
    _require_column(table, id_column, key="data.id", where=where)
    _require_usable(table, id_column)
    column = arrow[id_column]
    try:
        ids = pa.chunked_array([spell_column(chunk) for chunk in column.chunks], pa.string())
    except (TypeError, ValueError):
        raise DataError(
            f"data.id: expected text or numbers in {id_column!r} of {where}, came {column.type}. Name another."
        ) from None
    if pc.all(pc.match_substring_regex(ids, r"^-?\d+\.0$")).as_py():  # As pandas writes a column of doubles.
        ids = pc.replace_substring(ids, ".0", "", max_replacements=1) if len(ids) else ids
    missing = pc.index(ids.is_null(), True).as_py()
    if missing >= 0:
        raise DataError(f"{where}, row {missing + 1}: expected an id in {id_column!r}, came none. Fill it.")
    return ids


def _read_texts(table: Dataset, arrow: pa.Table, name: str, *, key: str, where: str) -> pa.ChunkedArray:
    """A column of texts, refused where it holds something else."""
    _require_column(table, name, key=key, where=where)
    _require_usable(table, name)
    column, field = arrow[name], arrow.schema.field(name)
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    if is_bytes(column.type):
        return _decode_texts(column, name, where)
    came = describe_column(field)
    if came is None and not pa.types.is_string(column.type):
        came = "nested values" if pa.types.is_nested(column.type) else f"values of type {column.type}"
        came = "numbers" if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) else came
    if came is not None:
        raise DataError(
            f"{where}: expected texts in column {name!r}, came {came}. Write them as text, or name another with {key}."
        )
    return column


def _decode_texts(column: pa.ChunkedArray, name: str, where: str) -> pa.ChunkedArray:
    """A column of bytes as the texts that they are in UTF-8."""
    done = 0
    chunks = []
    for chunk in column.chunks:
        try:
            chunks.append(spell_column(chunk))
        except ValueError as error:
            raise DataError(
                f"{where}, row {done + int(str(error))}: expected text in column {name!r}, came bytes that are no "
                "UTF-8. Convert the column."
            ) from None
        done += len(chunk)
    return pa.chunked_array(chunks, pa.string())


def find_empty_rows(table: pa.Table) -> np.ndarray:
    r"""Find the rows whose text, or either text of a pair, is missing or has nothing in it to see.

    Args:
        table: A table in the package's form.

    Returns:
        Bool, shape (N,).

    Example:
        >>> find_empty_rows(pa.table({"text": ["a joy", "  ", "\u200b", None]})).tolist()
        [False, True, True, True]
    """
    empty = np.zeros(table.num_rows, dtype=bool)
    for name in ("text", "text_b"):
        if name in table.column_names:
            empty |= ~find_visible(table[name])
    return empty


def describe_empty(table: pa.Table, rows: np.ndarray) -> str:
    """Say what empty rows hold in place of a text: mostly nothing, but an editor does not show U+200B either.

    Args:
        table: A table in the package's form.
        rows: Numbers of rows that ``find_empty_rows`` finds.

    Returns:
        "none", with the characters that nobody sees where there are any.
    """
    few = table.take(pa.array(rows[:100]))
    columns = [few[name] for name in ("text", "text_b") if name in few.column_names]
    texts = [text for column in columns for text in column.filter(pa.array(~find_visible(column))).to_pylist()]
    held = name_invisible(texts)
    return f"none that can be seen ({held})" if held else "none"


def prepare_inference_table(
    table: Dataset, *, text: str | None = None, text_b: str | None = None, is_pair: bool, where: str
) -> Dataset:
    """Bring a table without known labels into the form that the encoding stage reads.

    Args:
        table: The table as `read_table` gives it.
        text: Column of the text; found by the usual names where absent.
        text_b: Column of the second text.
        is_pair: Whether the artefact reads pairs.
        where: The table, for messages.

    Returns:
        Columns ``id``, ``text``, ``text_b`` (pairs), then the others as they are, rows in their order.

    Raises:
        DataError: A column is missing or of the wrong type, or a text is empty; names the row.

    Example:
        >>> table = Dataset.from_dict({"review": ["a joy", "a bore"], "stars": [5, 1]})
        >>> prepare_inference_table(table, is_pair=False, where="new.csv").column_names
        ['id', 'text', 'stars']
    """
    if text_b is not None and not is_pair:
        raise DataError(f"data.text_b: expected one text a row, as the artefact reads, came {text_b!r}. Leave it out.")
    if is_pair or text is not None:
        first, second, _ = find_text_columns(table, text=text, text_b=text_b, where=where)
    else:
        # A second text that is lying about must not turn single texts into pairs.
        seconds = [b for a, b in PAIR_NAMES if a == "text"]
        first, second, _ = find_text_columns(table.remove_columns(_present(table, seconds)), text=None, text_b=None,
                                             where=where)  # fmt: skip
    if is_pair and second is None:
        raise DataError(
            f"{where}: expected two texts a row, as the artefact reads, came the columns: {_list_columns(table)}. "
            f"Name the second with data.text_b.{offer_delimiter(where)}"
        )
    if not is_pair and second is not None:
        raise DataError(
            f"{where}: expected one text a row, as the artefact reads, came the pair {first!r} and {second!r}. "
            "Choose one with data.text."
        )
    columns, features = build_columns(table, text=first, text_b=second, label=None, id_column=None, where=where)
    empty = np.flatnonzero(find_empty_rows(columns))
    if len(empty):
        raise DataError(
            f"{where}, {name_rows(where, empty[:1].tolist())}: expected a text, came {describe_empty(columns, empty)}; "
            f"so in {len(empty)} of {len(columns)} rows. Fill or remove them."
        )
    return store_table(columns, features)


def _present(table: Dataset, names: Sequence[str]) -> list[str]:
    """Those of the names that the table has."""
    return [name for name in names if name in table.column_names]
