"""The run whose weights must not depend on how its batches are split."""

from pathlib import Path

import torch
from accelerate import PartialState

from nlp_transfer.engine.train.objectives import Objective
from tests.training import copy_weights, fit, make_recipe, prepare

NUM_EXAMPLES = 83
"""Two windows of 32 and a ragged one of 19 an epoch."""


def train_case(
    encoder: Path,
    microbatch_size: int | None,
    objective: Objective | None = None,
) -> tuple[dict[str, torch.Tensor], tuple[int, int]]:
    """Train two epochs with SGD, no clipping and no dropout; gives weights, and count and number of processes."""
    torch.set_num_threads(1)
    recipe = make_recipe(
        encoder,
        training__optimizer="sgd",
        training__learning_rate=0.2,
        training__max_grad_norm=None,
        training__schedule="constant",
        training__warmup_share=0.0,
        training__batch_size=32,
        training__epochs=2.0,
        training__microbatch_size=microbatch_size,
    )
    splits, prepared = prepare(recipe, n=NUM_EXAMPLES)
    model, log = fit(recipe, splits, prepared, objective=objective)
    assert log.steps == 6
    assert log.examples == 2 * NUM_EXAMPLES
    state = PartialState()
    return copy_weights(model), (state.num_processes, state.process_index)
