"""What tests of several processes share: one launch."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.invariants.launched import launch
from tests.tiny import make_splits


@pytest.fixture(scope="session")
def launched(tiny_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left: the weights of the case of gradients, in microbatches, then a whole run.

    The run has fewer batches of validation than processes.
    """
    folder = tmp_path_factory.mktemp("launched")
    encoder = str(tiny_encoder("bert"))
    splits = make_splits(10, 2)
    names = splits.labels.names
    (folder / "data").mkdir()
    for split, table in splits.tables.items():
        frame = table.to_pandas().assign(label=[names[index] for index in table["label"]])
        frame.to_parquet(folder / "data" / f"{split}.parquet")
    recipe = {
        "encoder": {"name": encoder},
        "strategy": {"kind": "full"},
        "training": {"max_steps": 2, "batch_size": 8, "learning_rate": 1e-2, "device": "cpu"},
        "evaluation": {"resamples": 100, "tfidf": False},
        "data": {"max_length": 48, "path": str(folder / "data")},
        "report": {"output_dir": str(folder / "run")},
    }
    task = {"encoder": encoder, "microbatch_size": 4, "weights": str(folder / "weights.safetensors"), "recipe": recipe}
    launch(folder, task)
    return folder
