"""What the tests of the loop share: one small fit, and a hook that breaks off."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from transformers import AutoTokenizer, PreTrainedModel

from nlp_transfer.contracts import Evaluation, Prepared, RunLog, Splits
from nlp_transfer.data.encode import encode_splits
from nlp_transfer.data.fingerprints import identify_rows
from nlp_transfer.engine.fast.packing import Packing
from nlp_transfer.engine.predict.forward import Feeder, Microbatch
from nlp_transfer.engine.train.checkpoint import CheckpointStore
from nlp_transfer.engine.train.loop import LoopSetup, run_loop
from nlp_transfer.engine.train.objectives import Objective, build_objective
from nlp_transfer.fitting.fit import use_fast_path
from nlp_transfer.models.encoder import load_encoder
from nlp_transfer.recipe.load import load_recipe
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.strategies import STRATEGIES, Adapted
from tests.tiny import make_splits


def make_recipe(encoder: Path, **overrides: object) -> Recipe:
    """A recipe without dropout, on a tiny encoder; double underscores stand for dots."""
    plain = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_recipe({"encoder": {"name": str(encoder), "dropout": 0.0}}, plain)


def prepare(recipe: Recipe, splits: Splits | None = None, **settings: object) -> tuple[Splits, Prepared]:
    """Made-up splits and their tokens."""
    splits = splits or make_splits(**settings)  # type: ignore[arg-type]
    return splits, encode_splits(splits, AutoTokenizer.from_pretrained(recipe.encoder.name), recipe.data)


def adapt(recipe: Recipe, prepared: Prepared) -> Adapted:
    """The recipe's encoder, adapted by its strategy."""
    loaded = load_encoder(recipe.encoder, prepared.labels, seed=recipe.training.seed)
    return STRATEGIES[recipe.strategy.kind].adapt(loaded, recipe.strategy)


def fit(
    recipe: Recipe,
    splits: Splits,
    prepared: Prepared,
    *,
    adapted: Adapted | None = None,
    plan: Callable[[int], list[np.ndarray]] | None = None,
    hooks: tuple[object, ...] = (),
    folder: Path | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    objective: Objective | None = None,
    half: bool = False,
    packing: Packing | None = None,
) -> tuple[nn.Module, RunLog]:
    """Run the loop on the CPU; gives the model and the log."""
    accelerator = Accelerator(cpu=True)
    adapted = adapted or adapt(recipe, prepared)
    counts = splits.facts.label_counts.get("train", {})
    setup = LoopSetup(
        model=adapted.model,
        feeder=Feeder(prepared, "train", accelerator.device),
        objective=objective or build_objective(prepared.labels, recipe.training, counts),
        training=recipe.training,
        accelerator=accelerator,
        new_parameters=adapted.new_parameters,
        eval_modules=adapted.eval_modules,
        evaluate=evaluate,
        hooks=hooks,  # type: ignore[arg-type]
        store=None if folder is None else CheckpointStore(folder, keep=2),
        rows=identify_rows(prepared),
        plan=plan,
        half=half,
    )
    setup.feeder.packing = packing
    headed = next((each for each in adapted.model.modules() if isinstance(each, PreTrainedModel)), None)
    with use_fast_path(adapted.model, headed) if packing is None else nullcontext():
        return adapted.model, run_loop(setup)


def copy_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every parameter and buffer, copied."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def find_largest_gap(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
    """Largest absolute difference between two sets of weights."""
    assert left.keys() == right.keys()
    assert len(left) > 10
    return max(float((left[name].double() - right[name].double()).abs().max()) for name in left)


def make_batch(labels: torch.Tensor, **columns: torch.Tensor) -> Microbatch:
    """What a loss reads of a microbatch."""
    return Microbatch({}, labels, None, len(labels), 0, 0, columns=columns)


class Watcher:
    """A hook that does nothing, for those that do something after a step."""

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:
        pass

    def after_evaluation(self, log: RunLog, evaluation: Evaluation) -> None:
        pass

    def close(self) -> None:
        pass


class Killed(BaseException):
    """Ends a run as a kill does: nothing is saved on the way out."""


class Breaker(Watcher):
    """Breaks off after a step, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, log: RunLog, loss: float | None, learning_rate: float) -> None:
        if log.steps == self.step:
            raise Killed
