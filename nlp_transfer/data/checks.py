"""What texts hold: words, signs that nobody sees, the same text in two places, unusual length."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from nlp_transfer.errors import DataError

__all__ = [
    "check_texts",
    "count_conflicts",
    "count_leaks",
    "find_long_texts",
    "find_visible",
    "hash_texts",
    "list_words",
    "name_invisible",
]

BATCH_ROWS = 20_000
LONG_BYTES = 1_000_000
"""Texts above this size are mentioned; chosen: two hundred thousand words, of which no encoder reads a share."""

# Spaces, punctuation, and those ASCII symbols that Python's `string.punctuation` counts as such. Other symbols stay:
# two emoji can be all the difference between two texts.
IGNORED = r"[\s\p{Z}\p{P}$+<=>^`|~]+"

# RE2 knows the categories of Unicode, not its property Default_Ignorable_Code_Point: what has that property in another
# category than Cf stands here by number (Hangul fillers, variation selectors, tags, ...), with the empty cell of
# Braille (2800). Nine signs of category Cf that are written in front of numbers are drawn, so they can be seen.
INVISIBLE = (
    r"\s\p{Z}\p{Cc}\p{Cf}\x{034F}\x{115F}\x{1160}\x{17B4}\x{17B5}\x{180B}-\x{180F}\x{2065}\x{2800}\x{3164}"
    r"\x{FE00}-\x{FE0F}\x{FFA0}\x{FFF0}-\x{FFF8}\x{E0000}-\x{E0FFF}"
)
DRAWN = r"\x{0600}-\x{0605}\x{06DD}\x{070F}\x{0890}\x{0891}\x{08E2}\x{110BD}\x{110CD}"
VISIBLE = f"[^{INVISIBLE}]|[{DRAWN}]"


def hash_texts(table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Reduce the text of every row, or both texts of a pair, to two numbers.

    Equal texts have equal numbers. Different texts have the same number once in about 2e19 pairs of rows; in a
    table of a million rows that happens with a chance of 3e-8.

    Args:
        table: A table with ``text`` and perhaps ``text_b``, without null in them.

    Returns:
        Two arrays, uint64, shape (N,): of the text as it is, and of the text without case, punctuation and
        spaces (so that "it 's" is "it's"). A text that is nothing but punctuation is left as it is.

    Example:
        >>> exact, near = hash_texts(pa.table({"text": ["A joy!", "a  joy"]}))
        >>> bool(exact[0] == exact[1]), bool(near[0] == near[1])
        (False, True)
    """
    exact = np.zeros(table.num_rows, dtype=np.uint64)
    near = np.zeros(table.num_rows, dtype=np.uint64)
    for name in ("text", "text_b"):
        if name not in table.column_names:
            continue
        start = 0
        for batch in table.select([name]).to_batches(max_chunksize=BATCH_ROWS):
            stop = start + batch.num_rows
            column = batch.column(0)
            # Odd factor: a pair's two texts must not be exchangeable.
            exact[start:stop] = exact[start:stop] * np.uint64(31) + _hash_column(column)
            near[start:stop] = near[start:stop] * np.uint64(31) + _hash_column(_normalize_texts(column))
            start = stop
    return exact, near


def _hash_column(column: pa.Array) -> np.ndarray:
    """Hash texts; uint64, shape (N,)."""
    values = column.to_numpy(zero_copy_only=False)
    return np.asarray(pd.util.hash_array(values.astype(object), categorize=False))


def _normalize_texts(column: pa.Array) -> pa.Array:
    """Texts without case, punctuation and spaces; those with nothing else keep their punctuation."""
    bare = pc.replace_substring_regex(column, IGNORED, "")
    bare = pc.if_else(pc.equal(bare, ""), pc.utf8_trim_whitespace(column), bare)
    return pa.array([text.casefold() for text in bare.to_pylist()], pa.string())


def count_leaks(
    keys: Mapping[str, tuple[np.ndarray, np.ndarray]], pairs: Sequence[tuple[str, str]]
) -> dict[str, dict[str, int]]:
    """Count the rows of one split whose text stands in another.

    Args:
        keys: Split name to what `hash_texts` made of it.
        pairs: Which splits to compare; rows of the second are counted.

    Returns:
        For each pair with a leak, as ``"first/second"``: ``exact`` and ``near`` (not exact, but equal up to case,
        punctuation and spacing).

    Example:
        >>> train, test = pa.table({"text": ["a joy", "a bore"]}), pa.table({"text": ["A joy.", "a bore", "fine"]})
        >>> count_leaks({"train": hash_texts(train), "test": hash_texts(test)}, [("train", "test")])
        {'train/test': {'exact': 1, 'near': 1}}
    """
    leaks = {}
    for first, second in pairs:
        exact = np.isin(keys[second][0], keys[first][0])
        near = np.isin(keys[second][1], keys[first][1]) & ~exact
        if exact.any() or near.any():
            leaks[f"{first}/{second}"] = {"exact": int(exact.sum()), "near": int(near.sum())}
    return leaks


def count_conflicts(keys: np.ndarray, labels: np.ndarray) -> int:
    """Count the rows whose text also occurs with another label.

    Args:
        keys: One number a text, uint64, shape (N,).
        labels: Class ids, shape (N,), or 0/1 of shape (N, C).

    Returns:
        Count of rows, all of a group of conflicting ones included.

    Example:
        >>> count_conflicts(np.array([7, 7, 8, 8]), np.array([0, 1, 1, 1]))
        2
    """
    flat = labels if labels.ndim == 1 else np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
    pairs = pd.DataFrame({"key": keys, "label": flat})
    return int((pairs.groupby("key")["label"].transform("nunique") > 1).sum())


def find_long_texts(table: pa.Table) -> tuple[int, int]:
    """Count the rows with a text of more than a million bytes.

    Args:
        table: A table with ``text`` and perhaps ``text_b``.

    Returns:
        Count of such rows, and the size of the longest text in bytes.
    """
    sizes = np.zeros(table.num_rows, dtype=np.int64)
    for name in ("text", "text_b"):
        if name in table.column_names:
            sizes = np.maximum(sizes, pc.binary_length(table[name]).fill_null(0).to_numpy())
    return int((sizes > LONG_BYTES).sum()), int(sizes.max(initial=0))


def find_visible(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    r"""Find the texts in which there is something to see.

    White space is nothing to see, nor is what a screen leaves out: control and format characters, soft hyphens,
    joiners, byte order marks, variation selectors, fillers.

    Args:
        column: Texts; None for a missing one.

    Returns:
        Bool, shape (N,); False for a missing text.

    Example:
        >>> find_visible(pa.array(["a joy", " ", "\u200b\ufeff", "!", None])).tolist()
        [True, False, False, True, False]
    """
    return np.asarray(pc.fill_null(pc.match_substring_regex(column, VISIBLE), False).to_numpy(zero_copy_only=False))


def name_invisible(texts: Sequence[str | None]) -> str:
    r"""Name by their numbers what some texts hold in place of something to see, white space left out.

    Args:
        texts: Texts that ``find_visible`` does not find.

    Returns:
        At most three code points; empty where there is only white space.

    Example:
        >>> name_invisible([" \u200b", "\xad\u200b", None])
        'U+200B, U+00AD'
    """
    found = dict.fromkeys(character for text in texts for character in text or "" if not character.isspace())
    return ", ".join(f"U+{ord(character):04X}" for character in list(found)[:3])


def check_texts(texts: Sequence[str], name: str) -> list[str]:
    """Refuse what is not a list of texts with something to see in each.

    Args:
        texts: What came.
        name: What it is called, for messages.

    Returns:
        The texts as a list of their own.

    Raises:
        DataError: It is one text, or an item is empty or no text.

    Example:
        >>> check_texts(("a joy", "a bore"), "texts")
        ['a joy', 'a bore']
    """
    if isinstance(texts, str):
        raise DataError(f"{name}: expected a list of texts, got one text. Write [text].")
    checked = list(texts)
    for row, text in enumerate(checked):
        if not isinstance(text, str):
            raise DataError(f"{name}: item {row}: expected a text, got {type(text).__name__}.")
    try:
        column = pa.array(checked, pa.large_string())
    except UnicodeEncodeError as error:
        raise DataError(
            f"{name}: expected text that can be written as UTF-8, got half of a surrogate pair: {error.object[:40]!r}. "
            "Correct it."
        ) from None
    empty = np.flatnonzero(~find_visible(column))
    if len(empty):
        held = name_invisible([checked[empty[0]]])
        only = f": nothing to see but {held}" if held else ""
        raise DataError(f"{name}: item {empty[0]} is empty{only}. Leave it out.")
    return checked


def list_words(text: str) -> list[str]:
    """Runs of letters, digits and underscores.

    Example:
        >>> list_words("It 's a joy!")
        ['It', 's', 'a', 'joy']
    """
    return re.findall(r"\w+", text)
