"""What a table of labelled texts is like, before any encoder looks at it for long."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from nlp_transfer.data.checks import list_words
from nlp_transfer.data.unseen import name_script
from nlp_transfer.errors import ShapeError

__all__ = [
    "bound_accuracy",
    "count_repeats",
    "describe_classes",
    "describe_lengths",
    "find_suspects",
    "guess_language",
]

SURE_SHARE = 0.5
"""Share of the letters that a script must have before a language is named by it; chosen."""

SCRIPT_LANGUAGES = {
    "HANGUL": "Korean",
    "THAI": "Thai",
    "GREEK": "Greek",
    "HEBREW": "Hebrew",
    "GEORGIAN": "Georgian",
    "ARMENIAN": "Armenian",
    "TAMIL": "Tamil",
    "TELUGU": "Telugu",
}
"""Scripts that one language uses almost alone. Latin, Cyrillic, Arabic and Devanagari serve many."""

KANA_SHARE = 0.1
"""Share of kana among the letters that tells Japanese from Chinese; chosen, running text has about half."""

COMMON_WORDS: dict[str, str] = {
    "English": "the of and to is in it that was for this with on are you not be have",
    "German": "der die und das ist nicht ich zu ein mit den es auf eine sie von dem wie",
    "French": "le la les et des est un une que pas je pour qui dans du en vous ce",
    "Spanish": "el la los que y de es un una no en por con para las se lo del",
    "Italian": "il di che non è la un una per con sono mi ho del della le si ma",
    "Portuguese": "o que de não é um uma para com os do da em eu se por mais as",
    "Dutch": "de het een en van is niet dat ik in te op zijn met voor je maar er",
}
"""A handful of the most frequent words of some languages that are written in Latin letters."""

COMMON_SHARE, COMMON_LEAD = 0.12, 1.5
"""Share of the words that must be common ones of a language, and how many times that of the next; chosen: running text
of each language has about a quarter."""

MOST_TEXTS = 2_000
"""Texts whose letters are looked at; chosen."""


def describe_classes(counts: Mapping[str, int]) -> dict[str, float]:
    """Say how many examples classes have and how even they are.

    Args:
        counts: Examples of every class; classes without any count too.

    Returns:
        ``classes``; ``smallest``, ``median`` and ``largest``, examples of a class; ``imbalance``, the largest over the
        smallest that has any; ``majority``, share of the largest; ``evenness``, the entropy of the shares over that of
        equal ones, in [0, 1].

    Raises:
        ShapeError: There are fewer than two classes, or no examples.

    Example:
        >>> found = describe_classes({"no": 30, "yes": 10})
        >>> found["imbalance"], found["majority"], round(found["evenness"], 3)
        (3.0, 0.75, 0.811)
    """
    sizes = np.array(list(counts.values()), dtype=np.float64)
    if len(sizes) < 2 or not sizes.sum():
        raise ShapeError(f"classes: expected examples of at least two classes, got {dict(counts)}. Add rows.")
    held = sizes[sizes > 0]
    shares = held / held.sum()
    return {
        "classes": float(len(sizes)),
        "smallest": float(sizes.min()),
        "median": float(np.median(sizes)),
        "largest": float(sizes.max()),
        "imbalance": float(held.max() / held.min()),
        "majority": float(shares.max()),
        "evenness": float(max(0.0, -(shares * np.log(shares)).sum()) / np.log(len(sizes))),
    }


def describe_lengths(lengths: np.ndarray, max_length: int) -> dict[str, float]:
    """Say how long texts are, in tokens.

    Args:
        lengths: Tokens of every text before anything is cut, special ones included, shape (N,).
        max_length: Tokens the encoder will read.

    Returns:
        ``mean``, ``median``, ``p95`` and ``longest`` in tokens, and ``truncated``, the share of texts that are longer
        than the encoder reads.

    Raises:
        ShapeError: There are no texts.

    Example:
        >>> describe_lengths(np.array([4, 8, 8, 20]), max_length=10)["truncated"]
        0.25
    """
    if not len(lengths):
        raise ShapeError("lengths: expected at least one text, got none. Add rows.")
    return {
        "mean": float(np.mean(lengths)),
        "median": float(np.median(lengths)),
        "p95": float(np.percentile(lengths, 95)),
        "longest": float(np.max(lengths)),
        "truncated": float(np.mean(lengths > max_length)),
    }


def count_repeats(keys: np.ndarray) -> int:
    """Count the rows whose text stood in an earlier row already.

    Args:
        keys: One number a text, shape (N,), as ``hash_texts`` gives them.

    Example:
        >>> count_repeats(np.array([7, 7, 8, 7]))
        2
    """
    return int(len(keys) - len(np.unique(keys)))


def bound_accuracy(keys_N: np.ndarray, labels_N: np.ndarray) -> float:
    """Say how often a classifier can be right at most, when rows that look alike to it get one label.

    Args:
        keys_N: One number a row, the same for rows that look alike; 0 for a row that is like no other.
        labels_N: Class ids, shape (N,).

    Returns:
        A share in [0, 1]: on these very rows, so an upper bound for others; 1 where there are none.

    Example:
        >>> bound_accuracy(np.array([7, 7, 7, 8, 0, 0]), np.array([0, 1, 1, 0, 0, 1])) == 5 / 6
        True
    """
    if not len(keys_N):
        return 1.0
    alone = keys_N == 0
    pairs, counts = np.unique(
        np.stack([keys_N[~alone], labels_N[~alone].astype(keys_N.dtype)]), axis=1, return_counts=True
    )
    _, starts = np.unique(pairs[0], return_index=True)
    held = int(np.maximum.reduceat(counts, starts).sum()) if len(starts) else 0
    return (held + int(alone.sum())) / len(keys_N)


def guess_language(texts: Sequence[str]) -> tuple[str | None, dict[str, float]]:
    """Say in which scripts texts are written, and in which language where that is sure.

    A script that one language uses almost alone names it, kana names Japanese; texts in Latin letters are compared with
    the most frequent words of seven languages. Anything less clear has no name.

    Args:
        texts: Any texts; the first 2,000 are looked at.

    Returns:
        The language in English, or None; and the share of each script among the letters, largest first.

    Example:
        >>> guess_language(["Это хорошо", "очень"])
        (None, {'CYRILLIC': 1.0})
        >>> guess_language(["the end of it was not for you and that is this"])[0]
        'English'
    """
    letters = Counter(letter for text in texts[:MOST_TEXTS] for letter in text if letter.isalpha())
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        scripts[name_script(letter)] += count
    total = sum(scripts.values())
    if not total:
        return None, {}
    shares = {script: count / total for script, count in scripts.most_common()}
    if shares.get("HIRAGANA", 0.0) + shares.get("KATAKANA", 0.0) >= KANA_SHARE:
        return "Japanese", shares
    leader = next(iter(shares))
    if shares[leader] < SURE_SHARE:
        return None, shares
    if leader != "LATIN":
        return SCRIPT_LANGUAGES.get(leader), shares
    words = Counter(word.casefold() for text in texts[:MOST_TEXTS] for word in list_words(text))
    num_words = sum(words.values())
    found = sorted(
        ((sum(words[word] for word in common.split()) / num_words, name) for name, common in COMMON_WORDS.items()),
        reverse=True,
    )
    (share, name), (second, _) = found[:2]
    return (name if share >= COMMON_SHARE and share >= COMMON_LEAD * second else None), shares


def find_suspects(probabilities_NC: np.ndarray, labels_N: np.ndarray) -> np.ndarray:
    """Find the rows whose label a classifier that has not seen them contradicts with confidence.

    It must be at least as sure of another class as it is of half of the rows for which it gives that class and their
    label agrees. Hard rows are contradicted too, but seldom so; and of wrong labels about half are found, so that the
    share of suspects is rather too low than too high. It is no proof of any single row.

    Args:
        probabilities_NC: Out-of-fold probabilities, float, shape (N, C); they need not be calibrated.
        labels_N: Class ids, shape (N,).

    Returns:
        Row numbers, int64, the most confident first.

    Source:
        After Northcutt et al. 2021, https://arxiv.org/abs/1911.00068. Departure: a class's threshold is the median
        confidence in right answers, not the mean in all rows so labelled, which counts hard rows of a weak classifier.

    Example:
        >>> find_suspects(np.array([[0.99, 0.01], [0.6, 0.4], [0.04, 0.96]]), np.array([1, 1, 1])).tolist()
        [0]
    """
    if len(probabilities_NC) != len(labels_N):
        raise ShapeError(f"suspects: expected a label a row, got {len(probabilities_NC)} rows, {len(labels_N)} labels.")
    if not len(labels_N):
        return np.zeros(0, dtype=np.int64)
    given_N, sure_N = probabilities_NC.argmax(axis=1), probabilities_NC.max(axis=1)
    agrees_N = given_N == labels_N
    if not agrees_N.any():
        return np.zeros(0, dtype=np.int64)
    least_C = np.full(probabilities_NC.shape[1], float(np.median(sure_N[agrees_N])))
    for label in np.unique(given_N[agrees_N]):
        least_C[label] = np.median(sure_N[agrees_N & (given_N == label)])
    rows = np.flatnonzero(~agrees_N & (sure_N >= least_C[given_N]))
    return rows[np.argsort(-sure_N[rows], kind="stable")]
