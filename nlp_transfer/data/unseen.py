"""What an encoder does not see of texts: tokens it does not know, texts without another, labels that hang on them."""

import math
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset

from nlp_transfer.contracts import Encoded, TokenCounts
from nlp_transfer.data.checks import hash_texts
from nlp_transfer.data.tokens import tokenize_texts

__all__ = [
    "FEWEST_ROWS",
    "MOST_UNKNOWN",
    "TokenCounter",
    "Unseen",
    "UnseenTally",
    "describe_unseen",
    "find_alike",
    "find_unseen",
    "list_unknown",
    "name_script",
    "score_unknown",
    "suggest_encoder",
]

MOST_UNKNOWN = 0.05
"""Share of tokens that the encoder may not know before the user is told; chosen: of English tweets, emoji included, an
English vocabulary does not know two in a hundred."""

LEAST_ROWS, FEWEST_ROWS = 0.05, 20
"""Share of the texts, and how many of them, that have to hold unknown tokens before it is asked what these say of the
labels; chosen."""

LEAST_LEAD = 0.1
"""How much more often than the most frequent label the unknown characters must give the right one before it is said
that they carry it; chosen. Two standard errors have to be passed as well."""

MOST_TEXTS, MOST_CHARACTERS = 1_000, 1_000
"""Texts with unknown tokens, and different characters in them, that are looked at; chosen."""

SHOWN_CHARACTERS = 5
"""Unknown characters that a message shows."""

SPACES = (*(mark * count for mark in ("▁", "Ġ", " ") for count in range(1, 9)), "Ċ", "ĉ", "č")
"""Pieces by which tokenizers write white space. SentencePiece puts one in front of what it does not know."""

KNOWN, UNKNOWN, EMPTY = 1, 1 << 32, 0
"""What a token that stands for something, the unknown token and one that says nothing of a text add to a sum, which so
counts both kinds at once."""


class TokenCounter:
    """Counts known and unknown tokens in rows of ids, all of a batch at once.

    Args:
        tokenizer: A `transformers` tokenizer; one that knows every byte, without an unknown token, will do.

    Example:
        >>> from transformers import BertTokenizer
        >>> counter = TokenCounter(BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "good": 4}))
        >>> counted = counter.count(np.array([2, 4, 1, 3, 2, 1, 3]), np.array([[1, 3], [5, 6]]), np.array([1, 1]))
        >>> counted.known.tolist(), counted.unknown.tolist(), counted.is_unseen.tolist()
        ([1, 0], [1, 1], [False, True])
    """

    def __init__(self, tokenizer: Any) -> None:
        names = ("pad", "cls", "sep", "mask", "bos", "eos")
        found = [getattr(tokenizer, f"{name}_token_id", None) for name in names]
        found += [tokenizer.convert_tokens_to_ids(piece) for piece in SPACES]
        unknown = _find_unknown(tokenizer)
        empty = [int(token) for token in found if token is not None and token != unknown]
        self._kinds = np.full(1 + max(*empty, unknown or 0, 0), KNOWN, dtype=np.int64)
        self._kinds[empty] = EMPTY
        if unknown is not None:
            self._kinds[unknown] = UNKNOWN
        self._powers: np.ndarray = np.ones(1, dtype=np.uint64)

    def count(self, ids_T: np.ndarray, bounds: np.ndarray, rows_N: np.ndarray) -> TokenCounts:
        """Count in some examples.

        Args:
            ids_T: Token ids of all rows, one behind the other, special ones included.
            bounds: Where each row's text starts and ends in them, shape (W, 2); for pairs both texts, (W, 4).
            rows_N: How many rows each example has, at least one.

        Returns:
            The counts.
        """
        if not len(rows_N):
            none = np.zeros(0, dtype=np.int32)
            return TokenCounts(none, none, none.astype(bool), none.astype(np.uint64))
        if ids_T.max(initial=0) >= len(self._kinds):
            self._kinds = np.pad(self._kinds, (0, int(ids_T.max()) + 1 - len(self._kinds)), constant_values=KNOWN)
        sums = np.concatenate([[0], np.cumsum(self._kinds[ids_T])])[bounds]
        # Of single texts S is 1, of pairs 2; an example is unseen where a text of it has no known token in any row.
        counts_NS = np.add.reduceat(sums[:, 1::2] - sums[:, ::2], np.cumsum(rows_N) - rows_N, axis=0)
        known_NS, unknown_NS = counts_NS % UNKNOWN, counts_NS // UNKNOWN
        return TokenCounts(
            known=known_NS.sum(axis=1).astype(np.int32),
            unknown=unknown_NS.sum(axis=1).astype(np.int32),
            is_unseen=(known_NS == 0).any(axis=1),
            keys=self._hash(ids_T, bounds, rows_N),
        )

    def _hash(self, ids_T: np.ndarray, bounds: np.ndarray, rows_N: np.ndarray) -> np.ndarray:
        """One number for the ids of each example, from where its first text starts to where its last one ends."""
        lasts_N = np.cumsum(rows_N) - 1
        starts_N, ends_N = bounds[lasts_N + 1 - rows_N, 0], bounds[lasts_N, -1]
        gaps_N = np.diff(np.append(starts_N, len(ids_T)))
        if gaps_N.max() > len(self._powers):
            # The factor is odd, so its powers are odd, and uint64 wraps around as it should.
            self._powers = np.cumprod(np.full(2 * int(gaps_N.max()), 0x9E3779B97F4A7C15, dtype=np.uint64))
        offset = int(starts_N[0])
        places_T = np.arange(offset, len(ids_T)) - np.repeat(starts_N, gaps_N)
        mixed_T: np.ndarray = (ids_T[offset:].astype(np.uint64) + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed_T ^= mixed_T >> np.uint64(29)
        mixed_T *= self._powers[places_T]
        sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(mixed_T)])
        # 0 is for examples that have no number.
        keys_N: np.ndarray = sums[ends_N - offset] - sums[starts_N - offset] + np.uint64(1)
        return keys_N


def _find_unknown(tokenizer: Any) -> int | None:
    """The id of the unknown token; None where there is none."""
    if tokenizer.unk_token_id is not None:
        return int(tokenizer.unk_token_id)
    model = tokenizer.backend_tokenizer.model if tokenizer.is_fast else None
    name = getattr(model, "unk_token", None)
    found = None if model is None or name is None else model.token_to_id(name)
    return None if found is None else int(found)


@dataclass(frozen=True)
class Unseen:
    """What an encoder does not see of some texts.

    Attributes:
        texts: Texts that were looked at; a pair is one.
        unseen: Those in which the encoder knows no token, in a pair in either text.
        unknown: Unknown tokens.
        tokens: Tokens that stand for something, and unknown ones.
        holding: Texts that hold an unknown token, and unseen ones.
        characters: Characters that are unknown, the most frequent first, and in how many of the texts that were
            looked at each stands.
        alike: Texts with the tokens of a different text that has another label.
        score: Share of the texts holding unknown tokens whose label the unknown characters alone give right; None
            where they do not carry the labels, or it was not asked.
        majority: Share of those texts that have the most frequent label; None likewise.
    """

    texts: int
    unseen: int
    unknown: int
    tokens: int
    holding: int
    characters: Mapping[str, int]
    alike: int = 0
    score: float | None = None
    majority: float | None = None

    @property
    def unknown_share(self) -> float:
        """Share of the tokens that are unknown, in [0, 1]."""
        return self.unknown / max(1, self.tokens)

    @property
    def blind_share(self) -> float:
        """Share of the texts whose label the encoder cannot see: nothing is known of them, or not what carries it."""
        return (self.unseen if self.score is None else self.holding) / max(1, self.texts)

    @property
    def is_notable(self) -> bool:
        """Whether it is worth telling."""
        return bool(self.unseen or self.alike or self.score is not None or self.unknown_share > MOST_UNKNOWN)


class UnseenTally:
    """Adds up what an encoder does not see of tables that come one after the other.

    Args:
        tokenizer: That of the encoder.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._sums = np.zeros(5, dtype=np.int64)
        self._texts: list[str] = []

    def add(self, table: Dataset, encoded: Encoded) -> None:
        """Count in what was tokenized.

        Args:
            table: Columns ``text`` and, for pairs, ``text_b``.
            encoded: Its tokens.
        """
        counts = encoded.counts
        if counts is None:
            return
        unknown, unseen = int(counts.unknown.sum()), int(counts.is_unseen.sum())
        holding = find_holding(counts)
        self._sums += (encoded.num_examples, unseen, unknown, unknown + int(counts.known.sum()), len(holding))
        room = MOST_TEXTS - len(self._texts)
        if room > 0 and len(holding):
            self._texts += read_texts(table, holding[:room])

    def find(self) -> Unseen:
        """Give what was found so far."""
        texts, unseen, unknown, tokens, holding = map(int, self._sums)
        return Unseen(texts, unseen, unknown, tokens, holding, list_unknown(self._texts, self._tokenizer))


def find_holding(counts: TokenCounts) -> np.ndarray:
    """Find the examples that hold an unknown token, or of which nothing is known; row numbers, int64."""
    return np.flatnonzero((counts.unknown > 0) | counts.is_unseen)


def read_texts(table: Dataset, rows: np.ndarray) -> list[str]:
    """Read some texts of a table, the two of a pair joined."""
    few = table.select(rows)
    columns = [few[name][:] for name in ("text", "text_b") if name in table.column_names]
    return [" ".join(parts) for parts in zip(*columns, strict=True)]


def find_unseen(table: Dataset, encoded: Encoded, tokenizer: Any) -> Unseen:
    """Find out what an encoder does not see of a table, and whether labels hang on it.

    Args:
        table: Columns ``text`` and, for pairs, ``text_b``.
        encoded: Its tokens and labels.
        tokenizer: That of the encoder.

    Returns:
        What is not seen.

    Example:
        >>> from nlp_transfer.data.encode import encode_table
        >>> from transformers import BertTokenizer
        >>> tokenizer = BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "good": 4})
        >>> table = Dataset.from_dict({"text": ["good", "bad", "sad"], "label": [1, 0, 1]})
        >>> found = find_unseen(table, encode_table(table, tokenizer, is_pair=False, max_length=8), tokenizer)
        >>> found.unseen, round(found.unknown_share, 2), found.alike, dict(found.characters)
        (2, 0.67, 2, {'a': 2, 'd': 2, 'b': 1, 's': 1})
    """
    tally = UnseenTally(tokenizer)
    tally.add(table, encoded)
    found, counts, labels = tally.find(), encoded.counts, encoded.labels
    if counts is None or labels is None:
        return found
    if labels.ndim == 2 or labels.dtype.kind != "f":
        found = replace(found, alike=int(find_alike(table, counts, labels).sum()))
    if not found.characters or found.holding < max(FEWEST_ROWS, LEAST_ROWS * found.texts):
        return found
    # Rows may be sorted by label.
    rows = np.random.default_rng(0).permutation(find_holding(counts))[:MOST_TEXTS]
    score, majority = score_unknown(read_texts(table, rows), _make_classes(labels)[rows], list(found.characters))
    if score - majority > max(LEAST_LEAD, 2 * math.sqrt(0.25 / len(rows))):
        found = replace(found, score=score, majority=majority)
    return found


def _make_classes(labels: np.ndarray) -> np.ndarray:
    """Labels as class ids: a number is above the median or not, several labels are one class by what they are."""
    if labels.ndim == 2:
        combined: np.ndarray = np.unique(labels, axis=0, return_inverse=True)[1].reshape(-1)
        return combined
    if labels.dtype.kind == "f":
        above: np.ndarray = (labels > np.median(labels)).astype(np.int64)
        return above
    return labels


def find_alike(table: Dataset, counts: TokenCounts, labels: np.ndarray) -> np.ndarray:
    """Find the texts that become the same tokens as a different text with another label.

    Texts that differ only in case, punctuation or spaces are not different here, as most encoders are made not to see
    that; nor are those counted of which only a part is read.

    Args:
        table: Columns ``text`` and, for pairs, ``text_b``.
        counts: Of its N rows.
        labels: Shape (N,), or (N, C).

    Returns:
        Bool, shape (N,); all rows of a group of such texts are found.
    """
    found = np.zeros(len(counts.keys), dtype=bool)
    rows = np.flatnonzero(counts.keys)
    rows = rows[_repeat(counts.keys[rows])]
    if not len(rows):
        return found
    flat = _make_classes(labels[rows]) if labels.ndim == 2 else labels[rows]
    rows = rows[_differ(counts.keys[rows], flat)]
    if not len(rows):
        return found
    columns = [name for name in ("text", "text_b") if name in table.column_names]
    few = table.select(rows)
    _, near = hash_texts(pa.table({name: pa.array(few[name][:], pa.string()) for name in columns}))
    found[rows[_differ(counts.keys[rows], near)]] = True
    return found


def _repeat(keys: np.ndarray) -> np.ndarray:
    """Whether each key occurs more than once."""
    _, inverse, num = np.unique(keys, return_inverse=True, return_counts=True)
    return num[inverse] > 1


def _differ(keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Whether the rows that have the same key as this one hold different values."""
    order = np.argsort(keys, kind="stable")
    sorted_keys, sorted_values = keys[order], values[order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_keys[1:] != sorted_keys[:-1]]))
    differs = np.minimum.reduceat(sorted_values, starts) != np.maximum.reduceat(sorted_values, starts)
    found = np.zeros(len(keys), dtype=bool)
    found[order] = np.repeat(differs, np.diff(np.append(starts, len(keys))))
    return found


def list_unknown(texts: Sequence[str], tokenizer: Any) -> dict[str, int]:
    """List the characters that a tokenizer does not know.

    Args:
        texts: Texts that hold unknown tokens.
        tokenizer: Asked for their different words, and for each different character of those it does not know.

    Returns:
        Character to the count of texts that hold it, the most frequent first. It is empty where every character is
        known and only what they form is not, such as a word that is too long.
    """
    unknown = _find_unknown(tokenizer)
    if unknown is None or not texts:
        return {}

    def find(pieces: Sequence[str]) -> list[str]:
        found = tokenize_texts(tokenizer, pieces)
        return [piece for piece, ids in zip(pieces, found, strict=True) if unknown in ids]

    counts = Counter(character for text in texts for character in set(text))
    # A vocabulary may know a word and not each of its letters.
    words = find(sorted({word for text in texts for word in text.split()}))
    characters = sorted({character for word in words for character in word}, key=lambda found: (-counts[found], found))
    return {character: counts[character] for character in find(characters[:MOST_CHARACTERS])}


def score_unknown(texts: Sequence[str], classes_N: np.ndarray, characters: Sequence[str]) -> tuple[float, float]:
    """Ask how well unknown characters alone give the label.

    Naive Bayes on which of them a text holds learns from one half of the texts and answers for the other, both ways.

    Args:
        texts: N texts.
        classes_N: Class ids, shape (N,).
        characters: The characters, K of them.

    Returns:
        Share of right answers, and the share of the most frequent class; both in [0, 1].

    Source:
        McCallum and Nigam 1998, "A comparison of event models for naive Bayes text classification", the multi-variate
        Bernoulli model with its Laplace prior.

    Example:
        >>> texts = ["a +", "b -", "c +", "d -", "e +", "f -", "g +", "h -"]
        >>> score_unknown(texts, np.array([1, 0] * 4), ["+", "-"])
        (1.0, 0.5)
    """
    _, classes_N = np.unique(classes_N, return_inverse=True)
    num_classes = int(classes_N.max()) + 1
    majority = float(np.bincount(classes_N).max() / len(classes_N))
    places = {character: place for place, character in enumerate(characters)}
    held_NK = np.zeros((len(texts), len(characters)))
    for row, text in enumerate(texts):
        held_NK[row, [places[character] for character in set(text) if character in places]] = 1.0
    # Neighbours may follow a pattern, and rows of one class may stand together.
    half_N = np.random.default_rng(0).permutation(len(texts)) % 2
    num_right = 0
    for half in (0, 1):
        learned, asked = half_N != half, half_N == half
        one_hot_NC = np.eye(num_classes)[classes_N[learned]]
        rows_C = one_hot_NC.sum(axis=0)
        chance_CK = (one_hot_NC.T @ held_NK[learned] + 1) / (rows_C[:, None] + 2)
        prior_C = np.log((rows_C + 1) / (rows_C.sum() + num_classes))
        scores_NC = held_NK[asked] @ np.log(chance_CK).T + (1 - held_NK[asked]) @ np.log1p(-chance_CK).T + prior_C
        num_right += int((scores_NC.argmax(axis=1) == classes_N[asked]).sum())
    return num_right / len(texts), majority


def name_script(letter: str) -> str:
    """Name the script of a letter as Unicode has it, such as LATIN.

    Example:
        >>> name_script("\u044f"), name_script("\u30fc")
        ('CYRILLIC', 'KATAKANA')
    """
    return unicodedata.name(letter, "UNNAMED").partition(" ")[0].partition("-")[0]


SYMBOLS = "emoji and other symbols"
"""What is no letter, mark or digit: emoji, arrows, signs of currency."""

FORMS = frozenset({"MATHEMATICAL", "FULLWIDTH", "HALFWIDTH", "CIRCLED", "SUPERSCRIPT", "SUBSCRIPT", "MODIFIER"})
"""Words that names of letters begin with in place of a script: letters in bold, in circles, ..."""

LETTERS = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl"})
"""Categories of characters that words are written with."""

MULTILINGUAL_SCRIPTS = frozenset(
    {"LATIN", "GREEK", "CYRILLIC", "ARMENIAN", "HEBREW", "ARABIC", "DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI"}
    | {"ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA", "THAI", "LAO", "MYANMAR", "GEORGIAN", "HANGUL"}
    | {"ETHIOPIC", "KHMER", "CJK", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", *FORMS}
)
"""Scripts of the hundred languages that XLM-R was pretrained on (Conneau et al. 2020, appendix A); its tokenizer brings
letters of other forms to their plain one."""

MULTILINGUAL_SIZE = 200_000
"""Tokens from which a vocabulary is a multilingual one already; chosen: XLM-R has 250,000, English ones have 30,000 to
50,000."""

ENCODERS: dict[str, tuple[str, str]] = {
    "symbols": ("cardiffnlp/twitter-roberta-base-emoji-latest", "reads bytes and was trained on tweets with emoji"),
    "scripts": ("intfloat/multilingual-e5-small", "was pretrained on a hundred languages"),
    "bytes": ("FacebookAI/roberta-base", "reads bytes, so nothing is unknown to it, though its texts were English"),
}
"""Encoders that read what another does not know, by what that is: Hub id, and why it would read it."""


def suggest_encoder(characters: Mapping[str, int], vocabulary: int) -> tuple[str, str, str]:
    """Name an encoder that would read what another does not know.

    Args:
        characters: Unknown characters with their counts, as ``list_unknown`` gives them.
        vocabulary: Tokens in the vocabulary that does not have them.

    Returns:
        What most of the characters are, empty where there are none; Hub id of the encoder; and why it would read them.

    Example:
        >>> suggest_encoder({"\U0001f62d": 9, "\u0e2a": 2}, 30_000)[:2]
        ('emoji and other symbols', 'cardiffnlp/twitter-roberta-base-emoji-latest')
        >>> suggest_encoder({"\u0e2a": 2}, 30_000)[:2]
        ('letters of the script Thai', 'intfloat/multilingual-e5-small')
    """
    is_multilingual = vocabulary > MULTILINGUAL_SIZE
    kinds: Counter[str] = Counter()
    for character, count in characters.items():
        # What this Python has no name for is newer than it, which most often is emoji.
        is_letter = unicodedata.category(character) in LETTERS
        kinds[name_script(character) if is_letter else SYMBOLS] += count
    if not kinds:
        return ("", *ENCODERS["bytes" if is_multilingual else "scripts"])
    leader = kinds.most_common(1)[0][0]
    if leader == SYMBOLS:
        return (SYMBOLS, *ENCODERS["symbols"])
    what = "letters in bold, in circles or the like" if leader in FORMS else f"letters of the script {leader.title()}"
    return (what, *ENCODERS["scripts" if leader in MULTILINGUAL_SCRIPTS and not is_multilingual else "bytes"])


def describe_unseen(
    found: Unseen, tokenizer: Any, *, where: str, suggests: bool = True, way: str = "try it as encoder.name"
) -> list[str]:
    """Say in words what an encoder does not see.

    Args:
        found: What was found.
        tokenizer: That of the encoder.
        where: The texts, such as ``train``.
        suggests: Whether to name an encoder that would read what is unknown.
        way: How to use that one.

    Returns:
        One or two warnings; none where nothing is notable.
    """
    if not found.is_notable:
        return []
    what, encoder, why = suggest_encoder(found.characters, len(tokenizer))
    shown = " ".join(list(found.characters)[:SHOWN_CHARACTERS])
    kind = f" ({what}, such as {shown})" if shown and suggests else ""
    said = f"{_show_share(found.unknown_share)} of the tokens are unknown to the encoder{kind}"
    if found.unseen:
        holds = "holds" if found.unseen == 1 else "hold"
        share = _show_share(found.unseen / found.texts)
        said = f"{found.unseen:,} of {found.texts:,} texts ({share}) {holds} nothing that the encoder knows; {said}"
    warnings = [f"{where}: {said}." + (f" {encoder} {why}: {way}." if suggests else "")]
    hanging = []
    if found.score is not None and found.majority is not None:
        hanging.append(
            "what the encoder does not know carries the labels: by itself it gives that of "
            f"{found.score:.0%} of the texts that hold some of it ({found.majority:.0%} have the most frequent label)"
        )
    if found.alike:
        hanging.append(
            f"{found.alike:,} texts become the same tokens as a different text with another label, so that the encoder "
            "cannot tell them apart"
        )
    return warnings + ([f"{where}: {'; '.join(hanging)}."] if hanging else [])


def _show_share(share: float) -> str:
    """A share in percent; a small one is not shown as none."""
    return "less than 0.1%" if 0 < share < 0.001 else f"{share:.1%}"
