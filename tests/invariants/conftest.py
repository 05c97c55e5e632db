"""What tests of several processes share: a launch."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.invariants.launched import launch
from tests.invariants.run_case import NUM_ROWS, SETTINGS, make_tables


@pytest.fixture(scope="session")
def launched(tiny_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left: the weights of the case of gradients, in microbatches."""
    folder = tmp_path_factory.mktemp("launched")
    weights = str(folder / "weights.safetensors")
    launch(folder, {"encoder": str(tiny_encoder("bert")), "microbatch_size": 4, "weights": weights})
    return folder


@pytest.fixture(scope="session")
def launched_run(tiny_encoder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes left of a whole run, with fewer batches of validation than processes."""
    folder = tmp_path_factory.mktemp("launched")
    encoder = str(tiny_encoder("bert"))
    (folder / "data").mkdir()
    for split, table in make_tables(NUM_ROWS).items():
        table.to_parquet(folder / "data" / f"{split}.parquet")
    settings = {"encoder": {"name": encoder}, **SETTINGS}
    settings = {**settings, "data": {"path": str(folder / "data")}, "report": {"output_dir": str(folder / "run")}}
    recipe = folder / "recipe.yaml"
    recipe.write_text(json.dumps(settings), encoding="utf-8")
    launch(folder, {"recipe": str(recipe)})
    return folder
