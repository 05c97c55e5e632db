import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers import DataCollatorWithPadding

from nlp_transfer.contracts import Encoded
from nlp_transfer.data.batches import Collator, TokenStore, plan_epoch, plan_inference, round_width, split_window
from nlp_transfer.data.encode import encode_table, read_padding
from nlp_transfer.errors import ShapeError
from tests import tiny

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=150).map(np.array)


def make_encoded(lists):
    rows = Dataset.from_dict({"input_ids": lists})
    lengths = np.array([len(ids) for ids in lists], dtype=np.int32)
    return Encoded(rows, lengths, np.arange(len(lists)), None, num_examples=len(lists), truncated=0)


@given(lengths=LENGTHS, batch_size=st.integers(1, 20), epoch=st.integers(0, 2), grouped=st.booleans())
def test_every_example_is_in_one_window_of_an_epoch(lengths, batch_size, epoch, grouped):
    windows = plan_epoch(lengths, batch_size=batch_size, seed=1, epoch=epoch, group_by_length=grouped)
    assert sorted(np.concatenate(windows).tolist()) == list(range(len(lengths)))
    assert [len(window) for window in windows[:-1]] == [batch_size] * (len(windows) - 1)
    assert len(windows[-1]) == len(lengths) - batch_size * (len(windows) - 1)
    assert all(window.dtype == np.int64 for window in windows)


def test_plan_depends_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(3, 100, size=500)

    def plan(seed, epoch):
        return [window.tolist() for window in plan_epoch(lengths, batch_size=8, seed=seed, epoch=epoch)]

    assert plan(0, 1) == plan(0, 1)
    assert len({str(plan(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_grouping_by_length_saves_most_of_the_padding_and_still_shuffles():
    lengths = np.random.default_rng(0).geometric(0.05, size=4000)

    def count_padding(windows):
        return sum(int(lengths[w].max()) * len(w) - int(lengths[w].sum()) for w in windows)

    plain = plan_epoch(lengths, batch_size=16, seed=0, epoch=1, group_by_length=False)
    grouped = plan_epoch(lengths, batch_size=16, seed=0, epoch=1)
    assert len(plain) == len(grouped) == 250
    assert count_padding(grouped) < 0.1 * count_padding(plain)
    means = np.array([lengths[window].mean() for window in grouped])
    assert abs(np.corrcoef(np.arange(250), means)[0, 1]) < 0.2


@pytest.mark.parametrize("grouped", [True, False])
def test_first_epoch_starts_with_the_longest_window(grouped):
    lengths = np.random.default_rng(0).integers(3, 1000, size=640)
    first = plan_epoch(lengths, batch_size=8, seed=0, epoch=0, group_by_length=grouped)[0]
    assert lengths[first].max() == lengths.max()


def test_short_last_window_is_not_always_made_of_the_longest_examples():
    lengths = np.arange(103)
    means = [lengths[plan_epoch(lengths, batch_size=10, seed=s, epoch=1)[-1]].mean() for s in range(60)]
    assert len(means) == 60
    assert 40 < np.mean(means) < 62


@given(
    lengths=LENGTHS,
    num_processes=st.integers(1, 5),
    microbatch_size=st.none() | st.integers(1, 40),
    max_tokens=st.none() | st.integers(1, 300),
    seed=st.integers(0, 9),
)
def test_microbatches_of_all_processes_are_the_window(lengths, num_processes, microbatch_size, max_tokens, seed):
    window = np.random.default_rng(seed).permutation(len(lengths))[:32]
    parts = [
        split_window(
            window,
            lengths,
            num_processes=num_processes,
            rank=rank,
            microbatch_size=microbatch_size,
            max_tokens=max_tokens,
        )
        for rank in range(num_processes)
    ]
    flat = [part for rank in parts for part in rank]
    assert all(len(part) for part in flat)
    assert sorted(np.concatenate(flat).tolist()) == sorted(window.tolist())
    assert all(len(part) <= (microbatch_size or 32) for part in flat)
    counts = [sum(map(len, rank)) for rank in parts]
    assert max(counts) - min(counts) <= 1
    if max_tokens is not None:
        assert all(len(part) == 1 or len(part) * lengths[part].max() <= max_tokens for part in flat)
    for rank in parts:
        own = np.concatenate(rank) if rank else np.array([], dtype=int)
        assert (np.diff(lengths[own]) <= 0).all()


def test_processes_get_nearly_the_same_tokens():
    lengths = np.random.default_rng(0).geometric(0.02, size=256)
    totals = [
        sum(int(lengths[part].sum()) for part in split_window(np.arange(256), lengths, num_processes=4, rank=rank))
        for rank in range(4)
    ]
    assert sum(totals) == lengths.sum()
    assert max(totals) < 1.05 * min(totals)


def test_window_smaller_than_the_processes_leaves_some_without_work():
    parts = [split_window(np.array([4, 7]), np.ones(9), num_processes=3, rank=rank) for rank in range(3)]
    assert [len(part) for part in parts] == [1, 1, 0]


@pytest.mark.parametrize(
    ("size", "counts"), [(None, [18]), (32, [18]), (8, [6, 6, 6]), (5, [5, 5, 4, 4]), (1, [1] * 18)]
)
def test_microbatches_are_as_few_and_even_as_their_size_allows(size, counts):
    parts = split_window(np.arange(18), np.arange(18), microbatch_size=size)
    assert [len(part) for part in parts] == counts


@given(lengths=LENGTHS, batch_size=st.integers(1, 40), max_tokens=st.none() | st.integers(1, 500))
def test_inference_plan_holds_every_row_once_longest_first(lengths, batch_size, max_tokens):
    batches = plan_inference(lengths, batch_size=batch_size, max_tokens=max_tokens)
    flat = np.concatenate(batches)
    assert sorted(flat.tolist()) == list(range(len(lengths)))
    assert (np.diff(lengths[flat]) <= 0).all()
    assert all(1 <= len(batch) <= batch_size for batch in batches)
    if max_tokens is not None:
        assert all(len(batch) == 1 or len(batch) * lengths[batch].max() <= max_tokens for batch in batches)


def test_nothing_to_plan_gives_no_batches():
    empty = np.array([], dtype=np.int32)
    assert plan_epoch(empty, batch_size=4, seed=0, epoch=0) == []
    assert plan_inference(empty, batch_size=4) == plan_inference(empty, batch_size=4, max_tokens=9) == []


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("multiple", [None, 8])
def test_collator_pads_as_transformers_does(family, side, multiple):
    tokenizer = tiny.build_tokenizer(family)
    tokenizer.padding_side = side
    splits = tiny.make_splits(40, pairs=True)
    encoded = encode_table(splits.tables["train"], tokenizer, is_pair=True, max_length=40)
    rows = [7, 3, 39, 0, 3]
    table = splits.tables["train"][rows]
    features = tokenizer(table["text"], table["text_b"], truncation=True, max_length=40)
    expected = DataCollatorWithPadding(tokenizer, pad_to_multiple_of=multiple)(dict(features))
    pad, padding_side = read_padding(tokenizer)
    batch = Collator(pad, padding_side, pad_to_multiple_of=multiple)(encoded, np.array(rows))
    assert set(batch) == set(expected) >= {"input_ids", "attention_mask"}
    for name, tensor in batch.items():
        assert tensor.dtype == torch.int64
        assert torch.equal(tensor, expected[name]), name
    assert (batch["attention_mask"] == 0).any()


@given(
    lists=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=6), min_size=1, max_size=20),
    seed=st.integers(0, 9),
)
def test_collator_equals_a_loop_over_rows(lists, seed):
    rows = np.random.default_rng(seed).integers(0, len(lists), size=5)
    batch = Collator({"input_ids": 0}, "right")(make_encoded(lists), rows)
    width = max(len(lists[row]) for row in rows)
    assert batch["input_ids"].tolist() == [lists[row] + [0] * (width - len(lists[row])) for row in rows]
    assert batch["attention_mask"].sum().item() == sum(len(lists[row]) for row in rows)


def test_collator_follows_when_it_is_given_another_table():
    collate = Collator({"input_ids": 0}, "right")
    first, second = make_encoded([[1], [2]]), make_encoded([[3], [4]])
    values = [collate(table, [1])["input_ids"].item() for table in (first, second, first)]
    assert values == [2, 4, 2]


def test_collator_refuses_an_empty_batch_and_rows_that_do_not_exist():
    collate, encoded = Collator({"input_ids": 0}, "right"), make_encoded([[1], [2]])
    with pytest.raises(ShapeError, match="at least one row"):
        collate(encoded, [])
    for rows in ([2], [-1], [0, 5]):
        with pytest.raises(ShapeError, match="expected numbers from 0 to 1"):
            collate(encoded, rows)


def test_store_reads_across_chunks_and_selected_rows_without_a_copy(tmp_path):
    lists = [[index] * (index % 5) for index in range(300)]
    Dataset.from_dict({"input_ids": lists}).save_to_disk(tmp_path / "table")
    path = next((tmp_path / "table").glob("*.arrow"))
    mapped = Dataset.from_file(str(path)).map(lambda row: row, writer_batch_size=7, load_from_cache_file=False)
    assert len(mapped.data.column("input_ids").chunks) > 10
    store = TokenStore(mapped)
    flat, counts = store.gather("input_ids", [299, 0, 41, 299])
    assert flat.tolist() == [*lists[299], *lists[0], *lists[41], *lists[299]]
    assert counts.tolist() == [4, 0, 1, 4]
    values, _ = store._chunks["input_ids"][3]
    assert not values.flags.owndata
    assert not values.flags.writeable
    chosen = TokenStore(mapped.select([41, 7, 12]))
    assert chosen.gather("input_ids", [1])[0].tolist() == lists[7]
    assert chosen.num_rows == 3


def test_a_sliced_chunk_keeps_its_own_offsets():
    table = Dataset.from_dict({"input_ids": [[1, 2], [3], [4, 5], [6]]}).select(range(2, 4))
    flat, counts = TokenStore(table).gather("input_ids", [0, 1])
    assert (flat.tolist(), counts.tolist()) == ([4, 5, 6], [2, 1])


def test_few_widths_are_no_shorter_than_the_rows_and_no_longer_than_the_longest():
    lengths = np.array([17, 3, 18, 33])
    rows = Dataset.from_dict({"input_ids": [[1] * int(length) for length in lengths]})
    encoded = Encoded(rows, lengths, np.arange(4), None, num_examples=4, truncated=0)
    collator = Collator({"input_ids": 0}, "right")
    collator.has_few_widths = True
    widths = {row: collator(encoded, [row])["input_ids"].shape[1] for row in range(4)}
    assert widths == {0: 18, 1: 3, 2: 18, 3: 33}
    assert collator(encoded, [0])["attention_mask"].sum() == 17
    rounded = [round_width(width) for width in range(1, 513)]
    assert all(width <= found <= width * 1.125 for width, found in enumerate(rounded, start=1))
    assert len(set(rounded)) == 16 + 5 * 8
