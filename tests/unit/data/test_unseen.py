import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizer

from nlp_transfer.contracts import DataFacts, LabelSpace, Splits
from nlp_transfer.data import encode, unseen
from nlp_transfer.data.encode import encode_splits, encode_table
from nlp_transfer.data.tokens import tokenize_texts
from nlp_transfer.data.unseen import (
    ENCODERS,
    FEWEST_ROWS,
    MOST_UNKNOWN,
    TokenCounter,
    Unseen,
    UnseenTally,
    describe_unseen,
    find_alike,
    find_unseen,
    list_unknown,
    name_script,
    score_unknown,
    suggest_encoder,
)
from nlp_transfer.recipe.schema import DataConfig
from tests import tiny

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "tea", "a", "cafe", "!", "1", "2", "3", "4", "5"]


@pytest.fixture(scope="module")
def tokenizer():
    """A vocabulary of a few whole words, in lower case and without accents."""
    return BertTokenizer(vocab={word: place for place, word in enumerate(WORDS)})


def encode_texts(tokenizer, texts, texts_b=None, labels=None, *, max_length=12, **settings):
    columns = {"text": texts, "text_b": texts_b, "label": labels}
    table = Dataset.from_dict({name: column for name, column in columns.items() if column is not None})
    return table, encode_table(table, tokenizer, is_pair=texts_b is not None, max_length=max_length, **settings)


def make_splits(train, test, names=("no", "yes")):
    tables = {name: Dataset.from_dict({"text": texts, "label": labels}) for name, (texts, labels) in
              {"train": train, "test": test}.items()}  # fmt: skip
    return Splits(tables, LabelSpace("classification", names), DataFacts())


def test_known_and_unknown_tokens_are_counted_without_special_ones(tokenizer):
    _, encoded = encode_texts(tokenizer, ["good tea", "🍵", "good 🍵 🍵!", "[SEP] [MASK]", "\ufffd", "[UNK]"])
    assert encoded.counts.known.tolist() == [2, 0, 2, 0, 0, 0]
    assert encoded.counts.unknown.tolist() == [0, 1, 2, 0, 0, 1]
    assert encoded.counts.is_unseen.tolist() == [False, True, False, True, True, True]
    assert encoded.counts.unknown_share == 4 / 8


def test_a_pair_is_unseen_where_either_text_is(tokenizer):
    texts, texts_b = ["good", "🍵", "good", "🍵 tea"], ["tea", "tea", "🍵", "tea 🍵"]
    _, encoded = encode_texts(tokenizer, texts, texts_b)
    assert encoded.counts.is_unseen.tolist() == [False, True, True, False]
    assert encoded.counts.known.tolist() == [2, 1, 1, 2]
    assert encoded.counts.unknown.tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("long_text", ["truncate", "head_tail", "windows"])
def test_only_what_is_read_counts(tokenizer, long_text):
    texts = ["🍵 " * 20 + "good", "🍵 " * 40, "good " + "🍵 " * 20, "tea"]
    _, encoded = encode_texts(tokenizer, texts, long_text=long_text)
    expected = {"truncate": [True, True, False], "head_tail": [False, True, False], "windows": [False, True, False]}
    assert encoded.counts.is_unseen.tolist() == [*expected[long_text], False]
    assert len(encoded.counts.known) == encoded.num_examples == 4
    assert (encoded.counts.keys[:3] == 0).all() == (long_text != "windows")


@pytest.mark.parametrize("long_text", ["truncate", "windows"])
def test_pairs_of_long_texts_are_counted_text_by_text(tokenizer, long_text):
    _, encoded = encode_texts(tokenizer, ["🍵 " * 30, "good " * 30], ["tea", "🍵"], long_text=long_text)
    assert encoded.counts.is_unseen.tolist() == [True, True]
    _, encoded = encode_texts(tokenizer, ["good " * 30, "good " * 3], ["tea", "bad"], long_text=long_text)
    assert encoded.counts.is_unseen.tolist() == [False, False]


@pytest.mark.parametrize("pairs", [False, True])
def test_counts_of_every_family_are_those_of_a_plain_loop(family, pairs):
    tokenizer = tiny.build_tokenizer(family)
    texts = ["the hotel", "😀", "สวัสดี", "😀 the ⣿⣿", "[SEP]", "a", "été", "\ufffd", "x" * 120]
    texts_b = texts[::-1] if pairs else None
    _, encoded = encode_texts(tokenizer, texts, texts_b, max_length=400)
    names = ("pad", "cls", "sep", "mask", "bos", "eos")
    special = {getattr(tokenizer, f"{name}_token_id") for name in names} - {tokenizer.unk_token_id}
    seen, known, unknown = [], [], []
    for row in zip(*[column for column in (texts, texts_b) if column], strict=True):
        kinds = [
            ["?" if token == tokenizer.unk_token_id else "x" for token in ids
             if token not in special and tokenizer.convert_ids_to_tokens(token).strip("▁Ġ ")]
            for ids in tokenize_texts(tokenizer, row)
        ]  # fmt: skip
        seen.append(all("x" in text for text in kinds))
        known.append(sum(text.count("x") for text in kinds))
        unknown.append(sum(text.count("?") for text in kinds))
    assert encoded.counts.known.tolist() == known
    assert encoded.counts.unknown.tolist() == unknown
    assert encoded.counts.is_unseen.tolist() == [not is_seen for is_seen in seen]
    assert bool(sum(unknown)) == (family not in ("roberta", "modernbert")), "bytes leave nothing unknown"


@given(st.lists(st.lists(st.lists(st.integers(1, 9), max_size=4), min_size=1, max_size=2), min_size=2, max_size=9))
def test_keys_are_equal_just_where_tokens_are(examples):
    counter = TokenCounter(BertTokenizer(vocab={word: place for place, word in enumerate(WORDS)}))
    ids, bounds = [], []
    for row in (row for rows in examples for row in rows):
        bounds.append([len(ids) + 1, len(ids) + 1 + len(row)])
        ids += [2, *row, 3]
    keys = counter.count(np.array(ids), np.array(bounds), np.array([len(rows) for rows in examples])).keys
    for first, second in itertools.combinations(range(len(examples)), 2):
        assert (keys[first] == keys[second]) == (examples[first] == examples[second])
    assert (keys > 0).all()


def test_the_cache_tells_the_same_counts(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(encode.datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(encode, "EXAMPLES_PER_CALL", 3)
    texts = ["good", "🍵", "bad " * 30, "tea 🍵", "🍵", "a"]
    settings = {"max_length": 8, "long_text": "windows"}
    _, fresh = encode_texts(tokenizer, texts, in_memory=True, **settings)
    _, made = encode_texts(tokenizer, texts, **settings)
    monkeypatch.setattr(encode, "_write_rows", None)
    _, kept = encode_texts(tokenizer, texts, **settings)
    assert len(list(tmp_path.rglob("*.arrow"))) == 1
    for other in (made, kept):
        for name in ("known", "unknown", "is_unseen", "keys"):
            assert np.array_equal(getattr(other.counts, name), getattr(fresh.counts, name)), name
    assert kept.rows.column_names == ["input_ids", "token_type_ids"]


def test_an_empty_table_has_no_counts(tokenizer):
    _, encoded = encode_texts(tokenizer, [])
    assert (len(encoded.counts.known), encoded.counts.unknown_share) == (0, 0.0)


def test_different_texts_with_the_same_tokens_and_other_labels_are_found(tokenizer):
    texts = ["good 🍵", "good 🍷", "good 🍺", "tea", "tea", "bad 🍵", "bad 🍷", "Tea!", "tea !", "café", "cafe"]
    labels = [0, 1, 1, 0, 1, 0, 0, 0, 1, 0, 1]
    table, encoded = encode_texts(tokenizer, texts, labels=labels)
    # The same text twice is a conflict of another kind, and case and spaces are no difference.
    found = np.flatnonzero(find_alike(table, encoded.counts, encoded.labels)).tolist()
    assert found == [0, 1, 2, 9, 10]
    several = np.eye(2, dtype=np.float32)[labels]
    assert np.flatnonzero(find_alike(table, encoded.counts, several)).tolist() == found
    assert not find_alike(table, encoded.counts, np.zeros(len(texts), dtype=np.int64)).any()


def test_texts_that_are_read_in_part_are_not_called_alike(tokenizer):
    texts = ["good " * 20 + "tea", "good " * 20 + "bad"]
    table, encoded = encode_texts(tokenizer, texts, labels=[0, 1])
    assert not find_alike(table, encoded.counts, encoded.labels).any()


def test_pairs_are_alike_by_both_texts(tokenizer):
    table, encoded = encode_texts(tokenizer, ["good", "good", "bad"], ["🍵", "🍷", "🍷"], labels=[0, 1, 0])
    assert find_alike(table, encoded.counts, encoded.labels).tolist() == [True, True, False]


def test_unknown_characters_are_listed_by_how_many_texts_hold_them(tokenizer):
    assert list_unknown(["good 🍷🍷", "🍵 🍷", "tea"], tokenizer)["🍷"] == 2
    assert list(list_unknown(["1 🍷🍷", "🍵 🍷", "1"], tokenizer)) == ["🍷", "🍵"]
    assert list_unknown(["good 🍷"], tiny.build_tokenizer("roberta")) == {}
    assert list_unknown(["the 🍷"], tiny.build_tokenizer("xlm-roberta")) == {"🍷": 1}


def test_unknown_characters_that_tell_the_label_do_so_and_others_do_not():
    generator = np.random.default_rng(0)
    classes = generator.integers(0, 3, 300)
    telling = [f"{generator.integers(9)} {'🍵🍷🍺'[label]}" for label in classes]
    assert score_unknown(telling, classes, "🍵🍷🍺")[0] == 1.0
    idle = [f"{label} {'🍵🍷🍺'[generator.integers(3)]}" for label in classes]
    score, majority = score_unknown(idle, classes, "🍵🍷🍺")
    assert score < majority + 0.05


def make_drinks(n, drinks):
    """Texts that count, and hold a drink that tells the label."""
    return [f"{row % 5 + 1} {drinks[row % 2]}" for row in range(n)], [row % 2 for row in range(n)]


@pytest.mark.parametrize("kind", ["classes", "numbers", "several"])
def test_labels_that_hang_on_what_is_unknown_are_noticed(tokenizer, kind):
    texts, labels = make_drinks(2 * FEWEST_ROWS, "🍵🍷")
    wanted = {
        "classes": labels,
        "numbers": [label * 2.5 + row / 1000 for row, label in enumerate(labels)],
        "several": [[float(label), 1.0 - label] for label in labels],
    }
    table, encoded = encode_texts(tokenizer, texts, labels=wanted[kind])
    found = find_unseen(table, encoded, tokenizer)
    assert (found.score, found.majority) == (1.0, 0.5)
    assert (found.unseen, found.unknown_share, found.blind_share) == (0, 0.5, 1.0)
    assert list(found.characters) == ["🍵", "🍷"]
    assert found.is_notable


def test_what_is_unknown_by_the_way_is_not_made_much_of(tokenizer):
    texts, labels = make_drinks(200, ("good", "bad"))
    texts = [f"{text} tea tea tea tea tea {'🍷' if row % 20 == 0 else ''}" for row, text in enumerate(texts)]
    table, encoded = encode_texts(tokenizer, texts, labels=labels, max_length=20)
    found = find_unseen(table, encoded, tokenizer)
    assert 0 < found.unknown_share < MOST_UNKNOWN
    assert not found.is_notable
    assert describe_unseen(found, tokenizer, where="train") == []
    assert found.blind_share == 0.0


def test_unlabelled_texts_are_tallied_over_several_tables(tokenizer):
    tally = UnseenTally(tokenizer)
    for texts in (["good", "🍵"], ["🍷 tea"], []):
        tally.add(*encode_texts(tokenizer, texts))
    tally.add(Dataset.from_dict({"text": ["a"]}), SimpleNamespace(counts=None))
    found = tally.find()
    assert (found.texts, found.unseen, found.unknown, found.tokens, found.holding) == (3, 1, 2, 4, 2)
    assert set(found.characters) == {"🍵", "🍷"}


@pytest.mark.parametrize(
    ("characters", "vocabulary", "what", "encoder"),
    [
        ("🍵→", 30_000, "emoji and other symbols", "symbols"),
        ("🍵🍷ส", 250_000, "emoji and other symbols", "symbols"),
        ("สวด", 30_000, "letters of the script Thai", "scripts"),
        ("สวด", 250_000, "letters of the script Thai", "bytes"),
        ("ᏣᎳ", 30_000, "letters of the script Cherokee", "bytes"),
        ("\U0001d4f1\U0001d4f2", 30_000, "letters in bold, in circles or the like", "scripts"),
        ("", 30_000, "", "scripts"),
        ("", 250_000, "", "bytes"),
    ],
)
def test_an_encoder_is_named_by_what_is_unknown(characters, vocabulary, what, encoder):
    assert suggest_encoder(dict.fromkeys(characters, 1), vocabulary) == (what, *ENCODERS[encoder])


def test_the_most_frequent_kind_decides():
    assert suggest_encoder({"ส": 5, "🍵": 1, "🍷": 1}, 30_000)[1] == ENCODERS["scripts"][0]


def test_scripts_are_named_as_unicode_has_them():
    assert [name_script(letter) for letter in "aяส한"] == ["LATIN", "CYRILLIC", "THAI", "HANGUL"]


def test_what_is_said_is_short_enough_for_a_report(tokenizer):
    found = Unseen(
        1_000_000, 900_000, 9_000_000, 9_900_000, 950_000, dict.fromkeys("😀😁😂😃😄😅", 3), 1_000, 0.98, 0.5
    )
    said = describe_unseen(found, tokenizer, where="validation")
    assert len(said) == 2
    assert all(len(line) <= 300 for line in said)
    rare = describe_unseen(Unseen(10_000, 1, 1, 100_000, 1, {}), tokenizer, where="t", suggests=False)
    assert rare == [
        "t: 1 of 10,000 texts (less than 0.1%) holds nothing that the encoder knows; less than 0.1% of the tokens are "
        "unknown to the encoder."
    ]


def test_splits_are_counted_and_told_once_each(tokenizer):
    train, test = make_drinks(40, "🍵🍷"), (["🍵", "good", "🍷"], [0, 0, 1])
    splits = make_splits(train, test)
    for _ in range(2):
        encode_splits(splits, tokenizer, DataConfig(max_length=12))
    facts = splits.facts
    assert (facts.unseen, facts.unknown_share) == ({"train": 0, "test": 2}, {"train": 0.5, "test": 2 / 3})
    assert facts.alike == 40
    told, hanging, of_test = facts.warnings
    assert told.startswith(
        "train: 50.0% of the tokens are unknown to the encoder (emoji and other symbols, such as 🍵 🍷)"
    )
    assert ENCODERS["symbols"][0] in told
    assert "carries the labels: by itself it gives that of 100% of the texts" in hanging
    assert "40 texts become the same tokens as a different text with another label" in hanging
    assert of_test.startswith("test: 2 of 3 texts (66.7%) hold nothing that the encoder knows")
    assert ENCODERS["symbols"][0] not in of_test


def test_the_labels_of_other_splits_are_not_looked_at(tokenizer, monkeypatch):
    train, test = (["good", "bad"] * 20, [0, 1] * 20), make_drinks(40, "🍵🍷")
    asked = []
    monkeypatch.setattr(unseen, "score_unknown", lambda *given: asked.append(given))
    splits = make_splits(train, test)
    encode_splits(splits, tokenizer, DataConfig(max_length=12))
    assert asked == []
    assert splits.facts.unknown_share["test"] == 0.5
    assert len(splits.facts.warnings) == 1
    assert ENCODERS["symbols"][0] in splits.facts.warnings[0], "train has nothing unknown, so test says what would help"
