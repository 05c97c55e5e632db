"""The whole run that several tests go through: two steps on made-up tables."""

from typing import Any

from datasets import Dataset

from tests.tiny import make_splits

NUM_ROWS = 10
"""Rows to train on, and half of that for validation: one batch, where two processes look at it."""

SETTINGS: dict[str, Any] = {
    "strategy": {"kind": "full"},
    "training": {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu"},
    "evaluation": {"resamples": 100, "tfidf": False},
    "data": {"max_length": 48},
}


def make_tables(n: int = 24, first_seed: int = 0, num_labels: int = 2) -> dict[str, Dataset]:
    splits = make_splits(n, num_labels, first_seed)
    names = splits.labels.names
    return {
        split: Dataset.from_dict({"text": table["text"][:], "label": [names[index] for index in table["label"]]})
        for split, table in splits.tables.items()
    }
