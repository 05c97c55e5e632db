"""One value, one name: how booleans, numbers, dates and their like are written, whatever the file format.

A frame saved as csv, jsonl and parquet holds the same value as text, as JSON and as a typed cell: ``True``, ``true``
and a bit. Typed values are spelled as pandas writes them into a csv, and text that is nothing but such a value takes
the same spelling, so that all of them are one label.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

__all__ = [
    "MISSING_WORDS",
    "NUMBER",
    "is_bytes",
    "read_order",
    "spell",
    "spell_alike",
    "spell_column",
    "spell_interval",
    "spell_values",
]

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
"""Any way to write a number, ``01`` and ``1.10`` included."""

MISSING_WORDS = frozenset(
    {
        *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "1.#IND", "1.#QNAN", "-NaN", "-nan", "<NA>", "N/A", "NA"),
        *("NULL", "NaN", "None", "n/a", "nan", "null", "NaT"),
    }
)
"""Texts that pandas takes for a missing value when it reads a csv, and the one that it writes for a missing time."""

INTEGER = re.compile(r"0|-?[1-9]\d*", re.ASCII)
# As a program writes a number: no zero in front, none behind, but for a whole number's; `01` and `1.10` are text.
DECIMAL = re.compile(r"-?(0|[1-9]\d*)\.(0+|\d*[1-9])", re.ASCII)
TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?)?", re.ASCII)
SPAN = re.compile(r"(-?\d+) days?(?: \+?(\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?)?", re.ASCII)
# With the T: without it, a code such as P1D would be read as one day.
ISO_SPAN = re.compile(r"(-?)P(?:(\d+)D)?T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)(?:\.(\d{1,9}))?S)?", re.ASCII)
INTERVAL = re.compile(r"[(\[](-?[\d.e+-]+|-inf), (-?[\d.e+-]+|inf)[)\]]", re.ASCII)
NANOSECONDS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
DAY = 86_400 * 10**9


def spell(text: str) -> str:
    """Spell a text that is a boolean, a number, a time or a span of time; any other text stays as it is.

    Args:
        text: A cell.

    Returns:
        ``True`` or ``False`` in whatever case they come, a whole number without ``.0``, a date without a time of
        midnight, a time with a zone in UTC, a span in days, hours, minutes and seconds.

    Example:
        >>> [spell(text) for text in ("true", "2.0", "2020-01-02T00:00:00.000", "01", "1.10", "nan")]
        ['True', '2', '2020-01-02', '01', '1.10', 'nan']
    """
    return _read_value(text)[1]


def spell_alike(texts: Iterable[str]) -> dict[str, str]:
    """Spell the texts of a column, where all of them are values of one kind.

    Args:
        texts: The different cells.

    Returns:
        Each to its spelling; each to itself where one is a word, or written as no program would write the value:
        beside ``01`` or ``1.10``, ``1.0`` is text too.

    Example:
        >>> spell_alike(["true", "FALSE"]), spell_alike(["true", "maybe"])
        ({'true': 'True', 'FALSE': 'False'}, {'true': 'true', 'maybe': 'maybe'})
    """
    found = {text: _read_value(text) for text in texts}
    kinds = {kind for kind, _ in found.values()}
    if len(kinds) > 1 or "" in kinds:
        return {text: text for text in found}
    return {text: spelled for text, (_, spelled) in found.items()}


def spell_values(values: Sequence[object]) -> list[str | None]:
    """Write Python values, as a column of groups has them, as text.

    Args:
        values: Texts or others; None and NaN are missing.

    Returns:
        Texts as `spell_alike` spells them, other values as `spell` does; None where missing.

    Example:
        >>> spell_values([True, 2.0, None]), spell_values(["2.0", "1.10"])
        (['True', '2', None], ['2.0', '1.10'])
    """
    texts = spell_alike({value for value in values if isinstance(value, str) and value.strip()})
    return [
        None
        if value is None or value != value
        else texts.get(value, value)
        if isinstance(value, str)
        else spell(str(value))
        for value in values
    ]


def _read_value(text: str) -> tuple[str, str]:
    """The kind of value that a text is, empty for a word, and its spelling."""
    bare = text.strip()
    lowered = bare.lower()
    if lowered in ("true", "false"):
        return "boolean", lowered.capitalize()
    if NUMBER.fullmatch(bare):
        spelled = _spell_number(bare)
        return ("number", spelled) if spelled is not None else ("", text)
    for kind, read in (("time", _spell_time), ("span", _spell_span)):
        spelled = read(bare)
        if spelled is not None:
            return kind, spelled
    return "", text


def _spell_number(text: str) -> str | None:
    """A number without ``.0``; None where no program writes it like that."""
    if INTEGER.fullmatch(text):
        return text
    if DECIMAL.fullmatch(text):
        whole, fraction = text.split(".")
        if not fraction.strip("0"):
            return "0" if whole == "-0" else whole
        short = repr(float(text))
        return short if Decimal(short) == Decimal(text) else text
    value = float(text)
    if repr(value) != text:
        return None
    return str(int(value)) if value.is_integer() else text


def _spell_time(text: str) -> str | None:
    """A date, or a date and a time, in ISO's form."""
    match = TIME.fullmatch(text)
    if not match:
        return None
    day, clock, seconds, fraction, zone = match.groups()
    try:
        moment = datetime.fromisoformat(f"{day} {clock or '00:00'}:{seconds or '00'}{zone or ''}")
        if zone:
            moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):  # No such day, or one beyond the calendar.
        return None
    fraction = (fraction or "").rstrip("0")
    if not zone and not fraction and (moment.hour, moment.minute, moment.second) == (0, 0, 0):
        return f"{moment:%Y-%m-%d}".rjust(10, "0")
    shown = moment.replace(tzinfo=None).isoformat(" ")
    return shown + (f".{fraction}" if fraction else "") + ("+00:00" if zone else "")


def _spell_span(text: str) -> str | None:
    """A span of time, as pandas or ISO write it."""
    match = SPAN.fullmatch(text)
    if match:
        days, hours, minutes, seconds, fraction = match.groups()
        return _format_span(int(days) * DAY + _count_nanoseconds(hours, minutes, seconds, fraction))
    match = ISO_SPAN.fullmatch(text)
    if not match or text.endswith("T"):
        return None
    sign, days, *clock = match.groups()
    count = int(days or 0) * DAY + _count_nanoseconds(*clock)
    return _format_span(-count if sign else count)


def _count_nanoseconds(hours: str | None, minutes: str | None, seconds: str | None, fraction: str | None) -> int:
    """The nanoseconds of a time of day."""
    total = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return total * 10**9 + int((fraction or "").ljust(9, "0"))


def _format_span(count: int) -> str:
    """Nanoseconds as days and a time of day, which is left out where it is zero."""
    days, rest = divmod(count, DAY)
    if not rest:
        return f"{days} days"
    seconds, fraction = divmod(rest, 10**9)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{days} days {'+' if days < 0 else ''}{clock}" + (f".{fraction:09}".rstrip("0") if fraction else "")


def spell_column(column: pa.Array) -> pa.Array:
    """Write the values of a typed column as text.

    Args:
        column: Any Arrow array of single values.

    Returns:
        Strings of the same length; null where the value is null or NaN. Texts stay to the letter.

    Raises:
        TypeError: The type has no spelling, such as a list.
        ValueError: Bytes are no UTF-8; the message is the number of the row, from 1.

    Example:
        >>> spell_column(pa.array([1.0, None, 2.5])).to_pylist(), spell_column(pa.array([True])).to_pylist()
        (['1', None, '2.5'], ['True'])
    """
    kind = column.type
    if pa.types.is_string(kind):
        return column
    if pa.types.is_dictionary(kind):
        return spell_column(column.dictionary).take(column.indices)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_null(kind):
        return column.cast(pa.string())
    if is_bytes(kind):
        return _decode(column)
    if pa.types.is_boolean(kind):
        return pc.if_else(column, "True", "False").cast(pa.string())
    if pa.types.is_integer(kind) or pa.types.is_date(kind):
        return column.cast(pa.string())
    if pa.types.is_floating(kind):
        return _spell_floats(column)
    if pa.types.is_decimal(kind):
        return _map_values(column, {value: format(value, "f") for value in _list_unique(column)})
    if pa.types.is_temporal(kind):
        return _spell_temporal(column)
    if pa.types.is_struct(kind):
        return _spell_structs(column)
    raise TypeError(f"no spelling for {kind}")


def is_bytes(kind: pa.DataType) -> bool:
    """Say whether an Arrow type holds bytes, in whatever layout."""
    types = pa.types
    tests = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(test(kind) for test in tests)


def _decode(column: pa.Array) -> pa.Array:
    """Bytes as the text that they are in UTF-8."""
    values = column.cast(pa.binary())
    try:
        return values.cast(pa.string())
    except pa.ArrowInvalid:
        for row, value in enumerate(values.to_pylist()):
            try:
                (value or b"").decode()
            except UnicodeDecodeError:
                raise ValueError(str(row + 1)) from None
        raise


def _list_unique(column: pa.Array) -> list[object]:
    """The different values of a column, without null."""
    return [value for value in column.unique().to_pylist() if value is not None]


def _map_values(column: pa.Array, texts: dict[object, str | None]) -> pa.Array:
    """Every value by its text."""
    keys = pa.array(list(texts), column.type)
    return pa.array(list(texts.values()), pa.string()).take(pc.index_in(column, keys))


def _spell_floats(column: pa.Array) -> pa.Array:
    """Numbers in the fewest digits that tell them apart in their own precision; whole ones without a point."""
    if pa.types.is_float16(column.type):  # Which Arrow cannot look up; single precision holds it exactly.
        column = column.cast(pa.float32())
    unique = column.unique().drop_null()
    # By way of numpy: as a double, 0.1 in single precision would become 0.10000000149011612.
    texts = [str(value) for value in unique.to_numpy(zero_copy_only=False)]
    spelled = [None if text == "nan" else (_spell_number(text) or text) if text[-1] != "f" else text for text in texts]
    return pa.array(spelled, pa.string()).take(pc.index_in(column, unique))


def _spell_temporal(column: pa.Array) -> pa.Array:
    """Times and spans of time."""
    kind = column.type
    if pa.types.is_duration(kind):
        counts = column.cast(pa.int64())
        unit = NANOSECONDS[kind.unit]
        return _map_values(counts, {value: _format_span(value * unit) for value in _list_unique(counts)})  # type: ignore[operator]
    if pa.types.is_timestamp(kind):
        texts = column.cast(pa.timestamp(kind.unit)).cast(pa.string())
        if kind.tz is not None:  # Arrow stores UTC.
            texts = pc.binary_join_element_wise(texts, "+00:00", "")
        return _map_values(texts, {text: spell(str(text)) for text in _list_unique(texts)})
    if not pa.types.is_time(kind):
        raise TypeError(f"no spelling for {kind}")
    texts = column.cast(pa.string())
    return _map_values(texts, {text: re.sub(r"\.0+$|(?<=\.\d)0+$", "", str(text)) for text in _list_unique(texts)})


def _spell_structs(column: pa.Array) -> pa.Array:
    """Intervals as pandas writes them into JSON: objects with ``left``, ``right`` and ``closed``."""
    names = {field.name for field in column.type}
    if not {"left", "right", "closed"} <= names:
        raise TypeError(f"no spelling for {column.type}")
    rows = column.to_pylist()
    return pa.array([row and spell_interval(row["left"], row["right"], row["closed"]) for row in rows], pa.string())


def spell_interval(left: object, right: object, closed: object) -> str | None:
    """Write an interval as pandas does.

    Args:
        left: Its lower end.
        right: Its upper end.
        closed: Which ends belong to it: left, right, both or neither.

    Returns:
        A text; None where an end is missing.

    Example:
        >>> spell_interval(0, 10, "right")
        '(0, 10]'
    """
    if left is None or right is None or left != left:
        return None
    opening = "[" if closed in ("left", "both") else "("
    return f"{opening}{left}, {right}{']' if closed in ('right', 'both') else ')'}"


def read_order(names: Iterable[str]) -> dict[str, float] | None:
    """Find the place on a line of names that are numbers, booleans, times, spans or intervals.

    Args:
        names: Names of labels.

    Returns:
        Each name to a number; None where one is a word, or they are of several kinds. Times and booleans are placed
        by their order among these names.

    Example:
        >>> read_order(["(10, 20]", "(-5, 10]"]), read_order(["low", "2"])
        ({'(10, 20]': 10.0, '(-5, 10]': -5.0}, None)
    """
    listed = list(names)
    if all(NUMBER.fullmatch(name) for name in listed):
        return {name: float(name) for name in listed}
    matches = {name: INTERVAL.fullmatch(name) for name in listed}
    if all(matches.values()):
        try:
            return {name: float(match[1]) for name, match in matches.items() if match}
        except ValueError:
            return None
    kinds = {name: _read_value(name) for name in listed}
    found = {kind for kind, _ in kinds.values()}
    if found == {"span"}:
        return {name: float(_measure_span(spelled)) for name, (_, spelled) in kinds.items()}
    if found in ({"boolean"}, {"time"}):
        ranks = {spelled: rank for rank, spelled in enumerate(sorted({spelled for _, spelled in kinds.values()}))}
        return {name: float(ranks[spelled]) for name, (_, spelled) in kinds.items()}
    return None


def _measure_span(spelled: str) -> int:
    """The nanoseconds of a span as `spell` writes it."""
    match = SPAN.fullmatch(spelled)
    assert match
    days, *clock = match.groups()
    return int(days) * DAY + _count_nanoseconds(*clock)
