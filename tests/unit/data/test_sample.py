import numpy as np
import pytest
from datasets import Dataset

from nlp_transfer.data.sample import draw_splits, select_limit, select_shots
from nlp_transfer.errors import DataError


def sample_dataset(dataset, label_column, num_samples, seed):
    """setfit 1.2.0, data.py, restated: shuffle, first rows of each class, shuffle."""
    frame = dataset.shuffle(seed=seed).to_pandas()
    frame = frame.groupby(label_column).head(n=num_samples).reset_index(drop=True)
    return Dataset.from_pandas(frame, features=dataset.features).shuffle(seed=seed)


def test_shots_are_the_rows_that_setfit_draws_in_its_order():
    compared = 0
    for seed in (0, 1, 42):
        for shots in (1, 4, 8, 50):
            labels = np.random.default_rng(seed).choice(5, size=120, p=[0.5, 0.3, 0.1, 0.08, 0.02])
            data = Dataset.from_dict({"row": range(120), "label": labels.tolist()})
            chosen = select_shots(labels, shots, seed)
            assert chosen.tolist() == sample_dataset(data, "label", shots, seed)["row"][:]
            assert np.bincount(labels[chosen]).max() <= shots
            compared += len(chosen)
    assert compared > 500


def test_limit_is_the_first_rows_of_the_shuffle_of_datasets():
    data = Dataset.from_dict({"row": range(100)})
    assert select_limit(100, 30).tolist() == data.shuffle(seed=0)["row"][:30]
    assert sorted(select_limit(100, 300).tolist()) == list(range(100))


def draw(groups, strata, shares, seed=0):
    return draw_splits(np.asarray(groups, dtype=np.uint64), np.asarray(strata), shares, seed=seed, where="data")


SHARES = {"test": 0.2, "validation": 0.1}


def test_drawn_splits_share_no_row_and_keep_the_shares_of_the_classes():
    strata = np.repeat([0, 1, 2], [600, 300, 100])
    drawn, bare = draw(np.arange(1000), strata, SHARES)
    assert {split: np.bincount(strata[rows]).tolist() for split, rows in drawn.items()} == {
        "train": [420, 210, 70],
        "test": [120, 60, 20],
        "validation": [60, 30, 10],
    }
    assert sorted(np.concatenate(list(drawn.values())).tolist()) == list(range(1000))
    assert all(np.all(np.diff(rows) > 0) for rows in drawn.values())
    assert bare == []


def test_equal_texts_stay_on_one_side():
    groups = np.random.default_rng(0).integers(0, 150, size=500)
    drawn, _ = draw(groups, groups % 3, SHARES)
    sides = [set(groups[rows].tolist()) for rows in drawn.values()]
    assert sum(map(len, sides)) == len(set(groups.tolist()))
    assert abs(len(drawn["test"]) - 100) <= 10
    assert len(drawn["validation"]) > 0


def test_a_class_of_one_text_stays_in_train():
    drawn, bare = draw([*range(20), 50, 50], [0] * 10 + [1] * 10 + [2, 2], SHARES)
    assert {20, 21} <= set(drawn["train"].tolist())
    assert bare == [2]


def test_every_class_keeps_a_row_in_train():
    for seed in range(20):
        strata = np.random.default_rng(seed).integers(0, 12, size=40)
        drawn, _ = draw(np.arange(40), strata, {"test": 0.5, "validation": 0.3}, seed)
        assert set(strata[drawn["train"]].tolist()) == set(strata.tolist())


def test_draws_depend_on_the_seed_alone():
    first, again, other = (draw(np.arange(100), [0] * 100, SHARES, seed)[0]["test"] for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("num_rows", [1, 2])
def test_too_few_rows_are_refused(num_rows):
    with pytest.raises(DataError, match=rf"data: expected enough texts to draw a \w+ split .* came {num_rows} rows?\."):
        draw(range(num_rows), [0] * num_rows, SHARES)


@pytest.mark.parametrize(("groups", "came"), [([0] * 21, "21 rows of one text"), ([0, 1] * 10, "20 rows of 2 diff")])
def test_rows_of_too_few_texts_are_refused_by_what_there_is(groups, came):
    with pytest.raises(DataError, match=rf"{came}.*rows with the same text stay in one split"):
        draw(groups, [0] * len(groups), SHARES)


def test_shares_that_leave_nothing_are_refused():
    with pytest.raises(DataError, match=r"expected shares that add up to less than 1, came 1\.1"):
        draw(range(10), [0] * 10, {"test": 0.6, "validation": 0.5})
