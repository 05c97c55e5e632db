"""The loop beside `transformers.Trainer`: the same losses, step by step, on the same order of the data."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Sampler
from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments

from tests.training import adapt, fit, make_recipe, prepare

NUM_STEPS = 50
BATCH = 8


class Rows(Dataset):  # type: ignore[type-arg]
    """Tokenized rows as Trainer takes them."""

    def __init__(self, prepared: Any) -> None:
        self.encoded = prepared.splits["train"]

    def __len__(self) -> int:
        return int(self.encoded.num_examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = dict(self.encoded.rows[index])
        return {**row, "labels": int(self.encoded.labels[index])}


class Listed(Sampler):  # type: ignore[type-arg]
    """A new fixed order every epoch."""

    def __init__(self, orders: list[np.ndarray]) -> None:
        self.orders, self.epoch = orders, 0

    def __len__(self) -> int:
        return len(self.orders[0])

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        return iter(self.orders[self.epoch - 1].tolist())


class RecordingTrainer(Trainer):
    """Trainer that keeps every loss in full precision and takes the order it is given."""

    orders: list[np.ndarray]

    def _get_train_sampler(self, *_: Any) -> Listed:
        return Listed(self.orders)

    def training_step(self, *arguments: Any, **settings: Any) -> torch.Tensor:
        loss = super().training_step(*arguments, **settings)
        self.recorded = [*getattr(self, "recorded", []), float(loss)]
        return loss


@pytest.mark.parametrize("strategy", ["full", "lora"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_losses_equal_those_of_trainer_step_by_step(
    strategy: str, schedule: str, tiny_encoder: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = make_recipe(
        tiny_encoder("bert"),
        strategy__kind=strategy,
        training__max_steps=NUM_STEPS,
        training__batch_size=BATCH,
        training__learning_rate=5e-3,
        training__schedule=schedule,
        training__warmup_share=0.1,
    )
    if strategy == "lora":
        lora = recipe.strategy.model_copy(update={"dropout": 0.0})
        recipe = recipe.model_copy(update={"strategy": lora})
    splits, prepared = prepare(recipe, n=100)
    generator = np.random.default_rng(0)
    orders = [generator.permutation(100) for _ in range(5)]
    adapted = adapt(recipe, prepared)
    theirs = copy.deepcopy(adapted.model)

    _, log = fit(
        recipe,
        splits,
        prepared,
        adapted=adapted,
        plan=lambda epoch: np.split(orders[epoch], range(BATCH, 100, BATCH)),
    )

    trainer = RecordingTrainer(
        model=theirs,
        args=TrainingArguments(
            output_dir=str(tmp_path),
            max_steps=NUM_STEPS,
            per_device_train_batch_size=BATCH,
            learning_rate=5e-3,
            lr_scheduler_type=schedule,
            warmup_steps=5,
            weight_decay=recipe.training.weight_decay,
            use_cpu=True,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            logging_strategy="no",
        ),
        train_dataset=Rows(prepared),
        data_collator=DataCollatorWithPadding(AutoTokenizer.from_pretrained(recipe.encoder.name)),
    )
    trainer.orders = orders
    trainer.train()

    assert len(log.losses) == len(trainer.recorded) == NUM_STEPS
    np.testing.assert_allclose(log.losses, trainer.recorded, rtol=1e-5)
    assert log.losses[-1] < 0.9 * log.losses[0], "nothing was learned, so nothing was compared"
