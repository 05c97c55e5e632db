import errno
import importlib.util
import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModel, AutoTokenizer

from nlp_transfer.data import encode, tokens
from nlp_transfer.data.encode import encode_splits, encode_table, read_labels, read_padding, resolve_max_length
from nlp_transfer.data.tokens import (
    RowMaker,
    compare_lengths,
    read_template,
    split_budget,
    spread_windows,
    tokenize_texts,
)
from nlp_transfer.errors import DataError, EncoderError, StorageError
from nlp_transfer.recipe.schema import DataConfig
from tests import tiny

NUM_CACHED = encode.EXAMPLES_PER_CALL + 200
"""Rows of a table that is big enough to be cached."""


def make_table(texts, texts_b=None, **columns):
    return Dataset.from_dict({"text": texts, **({"text_b": texts_b} if texts_b is not None else {}), **columns})


def read_rows(encoded, column="input_ids"):
    return encoded.rows[:][column]


def mixed_texts(n, seed):
    """Texts of 0 to 60 words with what tokenizers stumble over: spaces, other scripts, special tokens."""
    oddities = [
        "",
        "   ",
        "naïve\t\tcafé",
        "日本語のテキスト",
        "😀😀",
        "[SEP] </s> [CLS] <s>",
        "a" * 150,
        "\n\n x",
        "...",
    ]
    generator = random.Random(seed)
    texts = tiny.make_texts(n, seed, min_words=0, max_words=60)
    return [f"{generator.choice(oddities)} {text}" if generator.random() < 0.4 else text for text in texts] + oddities


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "nlp_transfer"


@pytest.fixture
def calls(monkeypatch):
    """Counts the examples that are tokenized."""
    counted = []
    make_rows = RowMaker.make_rows

    def count(self, texts, texts_b=None):
        counted.append(len(texts))
        return make_rows(self, texts, texts_b)

    monkeypatch.setattr(RowMaker, "make_rows", count)
    return counted


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("pairs", [False, True])
def test_rows_equal_the_tokenizers_own_truncation(family, pairs, side):
    tokenizer = tiny.build_tokenizer(family)
    tokenizer.truncation_side = side
    texts = mixed_texts(15, 1)
    texts_b = mixed_texts(15, 2)[::-1] if pairs else None
    num_truncated = []
    for max_length in (7, 24, 33, 400):
        encoded = encode_table(make_table(texts, texts_b), tokenizer, is_pair=pairs, max_length=max_length)
        expected = tokenizer(texts, texts_b, truncation=True, max_length=max_length)
        assert read_rows(encoded) == expected["input_ids"]
        assert encoded.lengths.tolist() == [len(ids) for ids in expected["input_ids"]]
        assert ("token_type_ids" in encoded.rows.column_names) == ("token_type_ids" in expected)
        if "token_type_ids" in expected:
            assert read_rows(encoded, "token_type_ids") == expected["token_type_ids"]
        full = tokenizer(texts, texts_b)["input_ids"]
        num_truncated.append(encoded.truncated)
        assert encoded.truncated == sum(len(ids) > max_length for ids in full)
        assert encoded.examples.tolist() == list(range(len(texts)))
        assert encoded.num_examples == len(texts) == 24
    assert num_truncated[0] > 12
    assert num_truncated[-1] < num_truncated[0]


def test_type_ids_tell_the_texts_of_a_pair_apart_where_the_family_reads_them(family):
    tokenizer = tiny.build_tokenizer(family)
    encoded = encode_table(make_table(["one"], ["two"]), tokenizer, is_pair=True, max_length=20)
    has_types = "token_type_ids" in encoded.rows.column_names
    assert has_types == (family in tiny.PAIR_TYPE_FAMILIES)
    if has_types:
        assert set(encoded.rows["token_type_ids"][0]) == {0, 1}


@given(first=st.integers(0, 40), second=st.integers(0, 40), budget=st.integers(1, 50))
def test_split_budget_uses_the_budget_and_cuts_the_longer_text_first(first, second, budget):
    kept_first, kept_second = split_budget(first, second, budget)
    assert kept_first <= first
    assert kept_second <= second
    assert kept_first + kept_second == min(budget, first + second)
    if kept_first < first and kept_second < second:
        assert abs(kept_first - kept_second) <= 1


def test_head_tail_keeps_both_ends_of_a_single_text(family):
    tokenizer = tiny.build_tokenizer(family)
    texts = [*tiny.make_texts(20, 4, min_words=40, max_words=60), "short"]
    encoded = encode_table(make_table(texts), tokenizer, is_pair=False, max_length=21, long_text="head_tail")
    template = read_template(tokenizer, is_pair=False)
    plain = tokenizer(texts, add_special_tokens=False)["input_ids"]
    num_head = (22 - template.num_special) // 2
    num_tail = 21 - template.num_special - num_head
    seen = 0
    for row, ids in zip(read_rows(encoded)[:-1], plain[:-1], strict=True):
        assert row == template.wrap(ids[:num_head] + ids[-num_tail:])
        seen += 1
    assert seen == encoded.truncated == 20
    assert read_rows(encoded)[-1] == tokenizer("short")["input_ids"]


def test_head_tail_of_a_pair_leaves_the_short_text_whole():
    tokenizer = tiny.build_tokenizer("bert")
    long = " ".join(["superb", *["the"] * 50, "awful"])
    encoded = encode_table(
        make_table(["a hotel"], [long]), tokenizer, is_pair=True, max_length=12, long_text="head_tail"
    )
    shown = tokenizer.convert_ids_to_tokens(encoded.rows["input_ids"][0])
    assert shown == ["[CLS]", "a", "hotel", "[SEP]", "superb", "the", "the", "the", "the", "the", "awful", "[SEP]"]


@given(num_tokens=st.integers(1, 400), width=st.integers(1, 60), overlap=st.floats(0, 0.9))
def test_windows_cover_every_token_with_at_least_the_overlap(num_tokens, width, overlap):
    starts = spread_windows(num_tokens, width, overlap)
    assert starts[0] == 0
    assert starts == sorted(set(starts))
    assert starts[-1] == max(num_tokens - width, 0)
    steps = np.diff(starts)
    assert (steps <= max(1, width - int(width * overlap))).all()


def test_windows_behind_the_last_one_allowed_are_cut_and_counted(family):
    tokenizer = tiny.build_tokenizer(family)
    texts = [*tiny.make_texts(4, 4, min_words=60, max_words=90), "short"]
    settings = {"is_pair": False, "max_length": 20, "long_text": "windows", "window_overlap": 0.25}
    whole = encode_table(make_table(texts, None), tokenizer, **settings)
    cut = encode_table(make_table(texts, None), tokenizer, max_windows=2, **settings)
    assert (np.bincount(whole.examples)[:4] > 2).all()
    assert np.bincount(cut.examples).tolist() == [2, 2, 2, 2, 1]
    assert (whole.truncated, cut.truncated) == (0, 4)
    first = [read_rows(whole)[row] for row in np.flatnonzero(whole.examples == 0)[:2]]
    assert read_rows(cut)[:2] == first


@pytest.mark.parametrize("pairs", [False, True])
def test_windows_hold_the_whole_text_in_full_rows(family, pairs):
    tokenizer = tiny.build_tokenizer(family)
    texts = [*tiny.make_texts(8, 4, min_words=40, max_words=90), "short"]
    texts_b = ["a hotel"] * 9 if pairs else None
    encoded = encode_table(
        make_table(texts, texts_b), tokenizer, is_pair=pairs, max_length=30, long_text="windows", window_overlap=0.25
    )
    rows = read_rows(encoded)
    assert encoded.truncated == 0
    assert encoded.num_examples == 9 < len(rows)
    assert (np.diff(encoded.examples) >= 0).all()
    counts = np.bincount(encoded.examples)
    assert (counts[:8] > 1).all()
    assert counts[8] == 1
    assert (encoded.lengths[:-1] == 30).all()
    template = read_template(tokenizer, is_pair=pairs)
    other = tokenize_texts(tokenizer, ["a hotel"])[0] if pairs else []
    for index, ids in enumerate(tokenize_texts(tokenizer, texts[:8])):
        width = 30 - template.num_special - len(other)
        begin = len(template.prefix)
        parts = [
            row[begin : begin + width] for row, owner in zip(rows, encoded.examples, strict=True) if owner == index
        ]
        starts = spread_windows(len(ids), width, 0.25)
        assert parts == [ids[start : start + width] for start in starts]


def test_windows_of_two_long_texts_count_what_is_not_seen():
    tokenizer = tiny.build_tokenizer("bert")
    long, longer = "the " * 30, "a " * 60
    encoded = encode_table(
        make_table([long, longer], [longer, long]), tokenizer, is_pair=True, max_length=23, long_text="windows"
    )
    assert encoded.truncated == 2
    for row in read_rows(encoded):
        words = tokenizer.convert_ids_to_tokens(row)
        assert (words.count("the"), words.count("a")) == (10, 10)


def test_second_run_tokenizes_nothing_even_from_other_tables_in_memory(cache, calls):
    texts = tiny.make_texts(NUM_CACHED, 7)
    tokenizer = tiny.build_tokenizer("bert")
    first = encode_table(make_table(texts, label=[0] * NUM_CACHED), tokenizer, is_pair=False, max_length=16)
    assert sum(calls) == NUM_CACHED
    halves = [make_table(part, label=[1] * len(part)) for part in (texts[:333], texts[333:])]
    shuffled = make_table(["other", *texts[::-1]], label=[1] * (NUM_CACHED + 1)).select(range(NUM_CACHED, 0, -1))
    tokenizer("leaves a limit behind", truncation=True, max_length=5)
    for again in (make_table(texts, label=[1] * NUM_CACHED), concatenate_datasets(halves), shuffled):
        second = encode_table(again, tiny.build_tokenizer("bert"), is_pair=False, max_length=16)
        assert read_rows(second) == read_rows(first)
        assert second.truncated == first.truncated > 0
        assert np.array_equal(second.examples, first.examples)
        assert second.labels.tolist() == [1] * NUM_CACHED
    encode_table(make_table(texts), tokenizer, is_pair=False, max_length=16)
    assert sum(calls) == NUM_CACHED
    assert len(list(cache.iterdir())) == 1
    assert first.rows.cache_files


def test_whatever_changes_the_tokens_is_tokenized_anew(cache, calls):
    texts = tiny.make_texts(NUM_CACHED, 7)
    bert, roberta = tiny.build_tokenizer("bert"), tiny.build_tokenizer("roberta")
    left = tiny.build_tokenizer("bert")
    left.truncation_side = "left"
    runs = [
        (texts, bert, {"max_length": 16}),
        ([*texts[:-1], texts[-1] + "x"], bert, {"max_length": 16}),
        ([texts[0] + texts[1][:1], texts[1][1:], *texts[2:]], bert, {"max_length": 16}),
        (texts, bert, {"max_length": 17}),
        (texts, roberta, {"max_length": 16}),
        (texts, left, {"max_length": 16}),
        (texts, bert, {"max_length": 16, "long_text": "head_tail"}),
        (texts, bert, {"max_length": 16, "long_text": "windows", "window_overlap": 0.1}),
        (texts, bert, {"max_length": 16, "long_text": "windows", "window_overlap": 0.5}),
    ]
    for number, (words, tokenizer, settings) in enumerate(runs):
        encode_table(make_table(words), tokenizer, is_pair=False, **settings)
        assert sum(calls) == NUM_CACHED * (number + 1)
    assert len(list(cache.iterdir())) == len(runs) == 9


def test_small_tables_leave_no_file(cache):
    encoded = encode_table(make_table(["one", "two"]), tiny.build_tokenizer("bert"), is_pair=False, max_length=16)
    assert encoded.num_examples == 2
    assert not cache.exists()


@pytest.mark.parametrize("long_text", ["truncate", "windows"])
def test_cached_rows_equal_rows_made_in_memory(cache, monkeypatch, long_text):
    table = make_table(tiny.make_texts(NUM_CACHED, 7), tiny.make_texts(NUM_CACHED, 8))
    settings = {"is_pair": True, "max_length": 40, "long_text": long_text, "window_overlap": 0.2}
    cached = encode_table(table, tiny.build_tokenizer("bert"), **settings)
    monkeypatch.setattr(encode, "EXAMPLES_PER_CALL", 10**6)
    fresh = encode_table(table, tiny.build_tokenizer("bert"), **settings)
    assert len(list(cache.iterdir())) == 1
    assert len(cached.rows) == len(fresh.rows) >= NUM_CACHED
    assert cached.rows.to_dict() == fresh.rows.to_dict()
    assert np.array_equal(cached.examples, fresh.examples)
    assert cached.truncated == fresh.truncated


def test_damaged_cache_entry_is_made_again(cache, calls):
    table, tokenizer = make_table(tiny.make_texts(NUM_CACHED, 7)), tiny.build_tokenizer("bert")
    first = read_rows(encode_table(table, tokenizer, is_pair=False, max_length=16))
    (entry,) = cache.iterdir()
    entry.write_bytes(b"not arrow")
    assert read_rows(encode_table(table, tokenizer, is_pair=False, max_length=16)) == first
    assert sum(calls) == 2 * NUM_CACHED
    assert list(cache.iterdir()) == [entry]


def test_another_process_may_finish_the_same_entry_first(cache, monkeypatch):
    table, tokenizer = make_table(tiny.make_texts(NUM_CACHED, 7)), tiny.build_tokenizer("bert")
    write_rows, other = encode._write_rows, []

    def write_after_another(*arguments):
        if not other:
            other.append(None)
            other[0] = encode_table(table, tokenizer, is_pair=False, max_length=16)
        write_rows(*arguments)

    monkeypatch.setattr(encode, "_write_rows", write_after_another)
    mine = encode_table(table, tokenizer, is_pair=False, max_length=16)
    assert read_rows(mine) == read_rows(other[0])
    assert [path.suffix for path in cache.iterdir()] == [".arrow"]


def test_full_disk_is_a_storage_error_and_leaves_nothing(cache, monkeypatch):
    table, tokenizer = make_table(tiny.make_texts(NUM_CACHED, 7)), tiny.build_tokenizer("bert")
    make_rows, count = RowMaker.make_rows, []

    def fail_later(self, texts, texts_b=None):
        count.append(len(texts))
        if len(count) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return make_rows(self, texts, texts_b)

    monkeypatch.setattr(RowMaker, "make_rows", fail_later)
    with pytest.raises(StorageError, match=r"No space left on device.*HF_DATASETS_CACHE"):
        encode_table(table, tokenizer, is_pair=False, max_length=16)
    assert len(count) == 2
    assert list(cache.iterdir()) == []


LONG_TEXTS = {
    "words": " ".join(tiny.make_texts(250, 1)),
    "one word": "superb" * 4000,
    "spaces first": " " * 14_000 + " ".join(tiny.make_texts(100, 2)),
    "spaces between": "The hotel" + "\n \t" * 5000 + "was awful. " * 900,
    "no spaces": "日本語のテキスト、" * 2200,
    "emoji": "😀👩‍👩‍👧" * 3000,
    "special tokens": "[SEP]</s>[MASK]<mask>" * 900,
    "accents": "e\u0301" * 9000,
}


@pytest.mark.parametrize("long_text", ["truncate", "head_tail"])
def test_clipping_very_long_texts_changes_no_token(family, long_text, monkeypatch):
    tokenizer = tiny.build_tokenizer(family)
    texts = list(LONG_TEXTS.values())
    settings = {"is_pair": False, "max_length": 32, "long_text": long_text}
    clipped = encode_table(make_table(texts), tokenizer, **settings)
    margin = tokens.CLIP_MARGIN
    monkeypatch.setattr(tokens, "CLIP_MARGIN", 10**9)
    whole = encode_table(make_table(texts), tokenizer, **settings)
    assert len(texts) == 8
    assert all(len(text) > 2 * (margin + 32 * tokens.CHARACTERS_PER_TOKEN) for text in texts)
    for name, ours, expected in zip(LONG_TEXTS, read_rows(clipped), read_rows(whole), strict=True):
        assert ours == expected, name
    assert clipped.truncated == whole.truncated >= 4


PAIR_LENGTHS = [(800, 20), (20, 800), (800, 40), (60, 800), (800, 60), (800, 0), (100, 110), (110, 100), (110, 110)]
PAIR_LENGTHS += [(400, 150), (150, 400), (800, 14), (15, 800), (800, 15)]


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_spare_token_goes_where_transformers_gives_it_however_long_the_texts(family, side, monkeypatch):
    tokenizer = tiny.build_tokenizer(family)
    tokenizer.truncation_side = side
    words = tiny.make_texts(1, 1, min_words=800, max_words=800)[0].split()
    firsts, seconds = ([" ".join(words[:num]) for num in nums] for nums in zip(*PAIR_LENGTHS, strict=True))
    # From here on texts of a few hundred characters are read in parts; longer pairs take transformers minutes.
    monkeypatch.setattr(tokens, "CLIP_MARGIN", 100)
    monkeypatch.setattr(tokens, "CHARACTERS_PER_TOKEN", 8)
    num_clipped = sum(max(len(a), len(b)) > 100 + 8 * 32 for a, b in zip(firsts, seconds, strict=True))
    assert num_clipped == len(PAIR_LENGTHS) == 14
    for max_length in (31, 32):
        rows = encode_table(make_table(firsts, seconds), tokenizer, is_pair=True, max_length=max_length)
        for lengths, ours, first, second in zip(PAIR_LENGTHS, read_rows(rows), firsts, seconds, strict=True):
            (expected,) = tokenizer([first], [second], truncation="longest_first", max_length=max_length)["input_ids"]
            assert ours == expected, (lengths, max_length)


@given(num_first=st.integers(0, 400), num_second=st.integers(0, 400), above=st.integers(1, 100))
def test_lengths_compare_as_those_of_the_whole_texts(num_first, num_second, above):
    tokenizer = tiny.build_tokenizer("bert")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "CLIP_MARGIN", 20)
        patch.setattr(tokens, "CHARACTERS_PER_TOKEN", 2)
        found = compare_lengths(tokenizer, "hotel " * num_first, "hotel " * num_second, above=above)
    assert np.sign(found) == np.sign(num_first - num_second)


def test_clipping_respects_the_side_that_is_kept():
    tokenizer = tiny.build_tokenizer("roberta")
    tokenizer.truncation_side = "left"
    texts = [LONG_TEXTS["words"], LONG_TEXTS["no spaces"]]
    encoded = encode_table(make_table(texts), tokenizer, is_pair=False, max_length=32)
    assert read_rows(encoded) == tokenizer(texts, truncation=True, max_length=32)["input_ids"]


def test_ten_megabytes_of_text_are_read_only_as_far_as_needed():
    seen = []
    backend = tiny.build_tokenizer("bert").backend_tokenizer

    class Watched:
        truncation = padding = None
        no_truncation = no_padding = staticmethod(lambda: None)

        def encode(self, text, add_special_tokens):
            seen.append(len(text))
            return backend.encode(text, add_special_tokens=add_special_tokens)

        def encode_batch_fast(self, texts, add_special_tokens):
            seen.extend(map(len, texts))
            return backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)

    tokenizer = SimpleNamespace(is_fast=True, backend_tokenizer=Watched())
    text = "The hotel was lovely. " * 500_000
    assert len(text) > 10_000_000
    for ends in ("head", "tail", "both"):
        (ids,) = tokenize_texts(tokenizer, [text], keep=128, ends=ends)
        assert len(ids) > 128
    assert len(seen) >= 4
    assert sum(seen) < 100_000


def test_limits_inside_the_tokenizer_file_are_ignored_and_put_back(minilm):
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    backend = tokenizer.backend_tokenizer
    before = backend.truncation, backend.padding
    assert before[0] is not None
    assert before[1] is not None
    text = "hello world " * 200
    (ids,) = tokenize_texts(tokenizer, [text])
    assert len(ids) == 400
    assert (backend.truncation, backend.padding) == before


def test_labels_become_arrays_of_every_task():
    label = [0, 2, 1]
    assert read_labels(make_table(["a"] * 3, label=label)).dtype == np.int64
    numbers = read_labels(make_table(["a"] * 3, label=[0.5, 1.0, -2.0]))
    assert (numbers.dtype, numbers.tolist()) == (np.float64, [0.5, 1.0, -2.0])
    lists = read_labels(make_table(["a"] * 3, label=[[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]).select([2, 1]))
    assert (lists.dtype, lists.tolist()) == (np.float32, [[0.0, 0.0], [1.0, 1.0]])
    with pytest.raises(DataError, match=r"lists of one length, got lengths \[1, 2\]"):
        read_labels(make_table(["a"] * 2, label=[[0.0], [0.0, 1.0]]))


@pytest.mark.parametrize("kind", ["classification", "ordinal", "multi_label", "regression"])
def test_prepared_splits_carry_labels_padding_and_truncation_of_every_task(kind):
    splits = tiny.make_splits(30, 3, kind=kind)
    test = splits.tables["test"].remove_columns("label")
    splits = type(splits)({**splits.tables, "test": test}, splits.labels, splits.facts)
    prepared = encode_splits(splits, tiny.build_tokenizer("roberta"), DataConfig(max_length=12))
    assert list(prepared.splits) == ["train", "validation", "test"]
    assert prepared.pad == {"input_ids": 1}
    assert prepared.padding_side == "right"
    assert prepared.splits["test"].labels is None
    labels = prepared.splits["train"].labels
    assert labels.tolist() == splits.tables["train"]["label"][:]
    assert splits.facts.truncated == {name: encoded.truncated for name, encoded in prepared.splits.items()}
    assert splits.facts.truncated["train"] > 5
    some = encode_splits(splits, tiny.build_tokenizer("roberta"), DataConfig(), splits_to_encode=["test"])
    assert list(some.splits) == ["test"]


def test_resolved_length_is_the_longest_the_model_can_run(family, tiny_encoder):
    folder = tiny_encoder(family)
    tokenizer, config = AutoTokenizer.from_pretrained(folder), AutoConfig.from_pretrained(folder)
    assert resolve_max_length(tokenizer, config, 50) == 50
    assert resolve_max_length(tokenizer, None, 1000) == tiny.MAX_LENGTH
    tokenizer.model_max_length = 10**30
    longest = resolve_max_length(tokenizer, config, 1000)
    assert longest == tiny.MAX_LENGTH
    model = AutoModel.from_pretrained(folder).eval()
    ids = torch.full((1, longest), 7)
    with torch.no_grad():
        assert model(input_ids=ids).last_hidden_state.shape[1] == longest


def test_missing_text_tiny_length_and_missing_padding_are_refused():
    tokenizer = tiny.build_tokenizer("roberta")
    with pytest.raises(DataError, match="train: expected a text in every row, got none in row 2 of text"):
        encode_table(make_table(["a", None]), tokenizer, is_pair=False, max_length=16, where="train")
    with pytest.raises(
        DataError, match=r"data.max_length: expected at least 6 tokens, of which 4 are special ones, got 5"
    ):
        encode_table(make_table(["a"], ["b"]), tokenizer, is_pair=True, max_length=5)
    assert encode_table(make_table(["a b"], ["b a"]), tokenizer, is_pair=True, max_length=6).lengths.tolist() == [6]
    tokenizer.pad_token = None
    with pytest.raises(EncoderError, match="padding token"):
        read_padding(tokenizer)


def test_empty_table_has_no_rows():
    table = make_table(["a"]).select([])
    encoded = encode_table(table, tiny.build_tokenizer("bert"), is_pair=False, max_length=16)
    assert (encoded.num_examples, len(encoded.rows), encoded.truncated) == (0, 0, 0)


def test_slow_tokenizers_give_the_same_rows():
    fast = tiny.build_tokenizer("bert")

    class Slow:
        is_fast = False

        def __getattr__(self, name):
            return getattr(fast, name)

        def __call__(self, *arguments, **settings):
            return fast(*arguments, **settings)

    texts = [*mixed_texts(10, 3), LONG_TEXTS["words"]]
    slow = encode_table(make_table(texts), Slow(), is_pair=False, max_length=16)
    assert read_rows(slow) == fast(texts, truncation=True, max_length=16)["input_ids"]
    assert len(encode._hash_tokenizer(Slow())) == 64


def test_tokenizer_that_rewrites_its_texts_is_refused():
    class Rewriting:
        is_fast = False

        def __call__(self, texts, **settings):
            if isinstance(texts, list):
                return {"input_ids": [[1]] * len(texts)}
            return {"input_ids": [5, 6], "token_type_ids": [0, 0]}

    with pytest.raises(EncoderError, match="Rewriting"):
        read_template(Rewriting(), is_pair=False)


def test_modules_of_the_checkout_are_tested():
    spec = importlib.util.find_spec("nlp_transfer.data.tokens")
    assert Path(spec.origin).parents[2] == Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "data.max_length=16 tokens; the rest of them is not read. Raise it, as far as the encoder reads, or set"),
        ({"long_text": "windows", "max_windows": 1}, "data.max_windows=1 windows of data.max_length=16 tokens"),
        ({"long_text": "windows"}, None),
        ({"max_length": 64}, None),
    ],
)
def test_that_many_texts_are_cut_is_said_once(tiny_encoder, keys, said):
    tokenizer = AutoTokenizer.from_pretrained(tiny_encoder("bert"))
    splits = tiny.make_splits(20, 2)
    table = make_table(["a " * (40 if row < 8 else 4) for row in range(20)], label=[0, 1] * 10)
    splits = replace(splits, tables={"train": table})
    for _ in range(2):
        encode_splits(splits, tokenizer, DataConfig(**{"max_length": 16, **keys}))
    if said is None:
        assert splits.facts.warnings == []
    else:
        (warning,) = splits.facts.warnings
        assert warning.startswith("train: 8 of 20 texts (40%) are longer than ")
        assert said in warning
