"""Fit one model: load an encoder, adapt it by its strategy, train it on prepared splits."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.contracts import Prepared, RunLog, Splits, Track, track_nothing
from nlp_transfer.data.target_scale import TargetScale, standardize_targets
from nlp_transfer.engine.fast.attention import attend_in_parts
from nlp_transfer.engine.fast.compiling import compile_layers
from nlp_transfer.engine.fast.dropout import cheap_dropout
from nlp_transfer.engine.fast.fused import block_layers, is_block
from nlp_transfer.engine.fast.packing import find_packing
from nlp_transfer.engine.fast.prefix import PrefixCache
from nlp_transfer.engine.fast.unpadded import pack_rows
from nlp_transfer.engine.machine import measure_peak_memory
from nlp_transfer.engine.precision import Precision
from nlp_transfer.engine.predict.forward import Feeder
from nlp_transfer.engine.predict.logits import predict_logits
from nlp_transfer.engine.train.checkpoint import CheckpointStore, collect_weights, restore_weights
from nlp_transfer.engine.train.loop import LoopSetup, count_steps, run_loop
from nlp_transfer.engine.train.objectives import Objective, build_objective
from nlp_transfer.engine.train.streams import Stream
from nlp_transfer.evaluation.predictions import predict_labels, to_probabilities
from nlp_transfer.evaluation.scoring import compute_metrics
from nlp_transfer.fitting.stages import HookMaker, build_cache, fit_probe
from nlp_transfer.models.encoder import LoadedEncoder, load_encoder, quiet_loading
from nlp_transfer.models.layers import find_parts
from nlp_transfer.models.output_layer import find_output_layer, rescale_output
from nlp_transfer.models.trim import LAST_MEETINGS, read_first_token
from nlp_transfer.recipe.schema import Recipe
from nlp_transfer.strategies import STRATEGIES, Adapted, Material, Stage

__all__ = ["Change", "Fitted", "fit_model", "predict_all", "predict_split", "use_fast_path"]

PLAIN = Precision("fp32", "asked for")
"""Default number format of a fit."""


@dataclass
class Fitted:
    """A trained model.

    Attributes:
        adapted: The model as its strategy made it, best weights in place.
        loaded: The encoder it started from.
        log: What happened while training.
        num_trainable: Count of trained weights, including those of a head that was fitted after training.
        target: Mean and deviation of a regression's target, already merged into the model's last layer; None for
            other tasks.
        weights: Name to weight on the CPU, after training and before conversion to the saved form, so that another fit
            can start from them; None if they were not asked for.
    """

    adapted: Adapted
    loaded: LoadedEncoder
    log: RunLog
    num_trainable: int
    target: TargetScale | None = None
    weights: Mapping[str, torch.Tensor] | None = None


Change = Callable[[Stage, Adapted, Material], Stage]
"""A method's change of a fit: windows, streams, modules or a loss, in addition to or in place of the strategy's."""


def fit_model(
    recipe: Recipe,
    splits: Splits,
    prepared: Prepared,
    accelerator: Accelerator,
    *,
    make_hooks: HookMaker | None = None,
    checkpoints: Path | None = None,
    rows: str = "",
    label: str = "training",
    track: Track = track_nothing,
    precision: Precision = PLAIN,
    start: Mapping[str, torch.Tensor] | None = None,
    changes: Sequence[Change] = (),
    keep_weights: bool = False,
) -> Fitted:
    """Train one model on prepared splits.

    With every strategy, the target of a regression is standardized by mean and standard deviation of train, so that
    its unit does not matter; losses and checkpoints are in this scale. At the end, mean and deviation are merged into
    the last layer: the returned model predicts in the target's own unit. Validation figures are in that unit too.

    Args:
        recipe: Encoder, strategy and training; ``training.seed`` decides head, order and dropout.
        splits: Label contract and label counts.
        prepared: Tokenized splits.
        accelerator: Places and wraps the model; one per fit.
        make_hooks: Called with the number of updates and a label, returns the hooks of the loop.
        checkpoints: Folder to write checkpoints to and resume from; None for no checkpoints.
        rows: Fingerprint of the run's rows, so that a run is not resumed with other rows.
        label: Label of the progress bar.
        track: Shows work other than training.
        precision: Number format of the training, where the accelerator does not set one itself.
        start: Weights to start from, as ``Fitted.weights`` of another fit of the recipe holds them; those that it
            lacks start as pretrained.
        changes: What methods make of the fit, in their order.
        keep_weights: Whether ``Fitted.weights`` is filled.

    Returns:
        The trained model.

    Raises:
        EncoderError: The encoder cannot be loaded.
        StorageError: A checkpoint could not be written.
        OutputError: The checkpoints are of a run on other rows.
    """
    training = recipe.training
    loaded = load_encoder(recipe.encoder, prepared.labels, seed=training.seed)
    target = None
    truth = _read_truth(prepared)
    if prepared.labels.kind == "regression":
        targets = prepared.splits["train"].labels
        assert targets is not None
        # Refuses, before anything is trained, a head into which the target's scale cannot be merged.
        find_output_layer(loaded.model)
        target = TargetScale.measure(targets)
        prepared = standardize_targets(prepared, target)
    adapted = STRATEGIES[recipe.strategy.kind].adapt(loaded, recipe.strategy)
    if training.gradient_checkpointing:
        with quiet_loading():
            loaded.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if start is not None:
        restore_weights(adapted.model, start, _list_trained(adapted.model))
    adapted.model.to(accelerator.device)
    num_trainable = adapted.num_trainable
    material = Material(splits, prepared, recipe, accelerator.device, track, target or TargetScale())
    stage = adapted.plan_stage(material) if adapted.plan_stage is not None else Stage()
    for change in changes:
        stage = change(stage, adapted, material)
    log = RunLog(device=accelerator.device.type, num_processes=accelerator.num_processes)
    if num_trainable:
        log = _train(
            material, truth, loaded, adapted, stage, accelerator, make_hooks, checkpoints, rows, label, precision
        )
    adapted.model = accelerator.unwrap_model(adapted.model, keep_fp32_wrapper=False)
    weights = collect_weights(adapted.model, _list_trained(adapted.model)) if keep_weights else None
    if adapted.fit_head is not None:
        started = time.perf_counter()
        adapted.fit_head(material)
        log.seconds += time.perf_counter() - started
        log.examples = log.examples or prepared.splits["train"].num_examples
        log.peak_memory_bytes = measure_peak_memory(accelerator.device)
        # A head that was fitted after training counts as trained.
        num_trainable = adapted.num_trainable
    if adapted.to_artifact is not None:
        adapted.model = adapted.to_artifact(adapted.model)
    if target is not None:
        rescale_output(adapted.model, target.mean, target.deviation)
    return Fitted(adapted, loaded, log, num_trainable, target, weights)


def _list_trained(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _read_truth(prepared: Prepared) -> np.ndarray | None:
    """Labels of validation, targets in their own unit; None if there are none."""
    return prepared.splits["validation"].labels if "validation" in prepared.splits else None


def _train(
    material: Material,
    truth: np.ndarray | None,
    loaded: LoadedEncoder,
    adapted: Adapted,
    stage: Stage,
    accelerator: Accelerator,
    make_hooks: HookMaker | None,
    checkpoints: Path | None,
    rows: str,
    label: str,
    precision: Precision,
) -> RunLog:
    """Prepare and run the loop."""
    recipe, training = material.recipe, material.recipe.training
    prepared = stage.prepared or material.prepared
    counts = material.splits.facts.label_counts.get("train", {})
    objective = stage.objective or build_objective(prepared.labels, training, counts)
    if adapted.probe is not None:
        fit_probe(
            adapted.model, adapted.probe, prepared, training, objective, accelerator, make_hooks, label, material.track
        )
    started = time.perf_counter()
    guides = (*adapted.guides, *stage.guides)
    holds_weights = any(guide.holds_weights for guide in guides)
    is_half = precision.format == "bf16" and accelerator.mixed_precision == "no"
    cache = build_cache(
        loaded.model, adapted.prefix, prepared, accelerator.device, material.track, half=is_half and not holds_weights
    )
    cache_seconds = time.perf_counter() - started
    setup = _make_setup(recipe, adapted, stage, prepared, objective, accelerator, cache)
    if truth is not None:
        setup.evaluate = _make_evaluation(recipe, prepared, truth, material.target, accelerator, cache)
    setup.rows = rows
    if accelerator.mixed_precision != "no":
        precision = Precision(str(accelerator.mixed_precision), precision.reason)
    elif precision.format == "bf16":
        setup.half = not holds_weights
        precision = precision if setup.half else Precision("fp32", "the strategy changes weights in place")
    if setup.half:
        for feeder in (setup.feeder, *(stream.feeder for stream in setup.streams)):
            feeder.pad_to_few_widths()
    setup.evaluate = (stage.evaluate or setup.evaluate) if stage.evaluates else None
    if make_hooks is not None:
        setup.hooks = make_hooks(count_steps(setup.feeder.encoded.num_examples, training), label)
    if checkpoints is not None:
        setup.store = CheckpointStore(checkpoints, keep=training.keep_checkpoints, rank=accelerator.process_index)
    with _beside(adapted.model, stage.modules, accelerator.device):
        log = _run_fast(setup, loaded, is_half=precision.format in ("bf16", "fp16"), reads_tokens=stage.reads_tokens)
    # The accelerator would hold the optimizer's moments, twice the weights, while what was saved is scored.
    accelerator.free_memory()
    log.seconds += cache_seconds
    log.precision, log.precision_reason = precision
    for guide in guides:
        log.methods |= guide.report()
    if cache is not None:
        cache.prefix.remove()
    return log


def _run_fast(setup: LoopSetup, loaded: LoadedEncoder, *, is_half: bool, reads_tokens: bool) -> RunLog:
    """Run the loop with every fast path that suits the model and the device."""
    model, training = setup.model, setup.training
    # A strategy that reads the encoder in another way than its own head has left that class behind.
    has_own_head = any(module is loaded.model for module in model.modules()) and not reads_tokens
    with contextlib.ExitStack() as stack:
        wanted = "off" if reads_tokens else training.packing
        packed = pack_rows(model, setup.feeder, wanted, is_half=is_half, reads_first=has_own_head)
        unpadded = stack.enter_context(packed)
        compiled = stack.enter_context(compile_layers(model, setup.accelerator.device, training.compile))
        for stream in setup.streams:
            stream.feeder.packing = setup.feeder.packing
        if unpadded.trains:
            stack.enter_context(cheap_dropout(model))
            stack.enter_context(attend_in_parts(model))
        else:
            stack.enter_context(use_fast_path(model, loaded.model if has_own_head else None))
        log = run_loop(setup)
    log.packing, log.compiled = unpadded.said, compiled
    return log


@contextlib.contextmanager
def _beside(model: nn.Module, modules: Mapping[str, nn.Module], device: torch.device) -> Iterator[None]:
    """Attach modules to a model during training, so that they are trained and saved in checkpoints with it."""
    for name, module in modules.items():
        assert not hasattr(model, name), f"the model has a {name} of its own"
        model.add_module(name, module.to(device))
    try:
        yield
    finally:
        for name in modules:
            delattr(model, name)


def _make_setup(
    recipe: Recipe,
    adapted: Adapted,
    stage: Stage,
    prepared: Prepared,
    objective: Objective,
    accelerator: Accelerator,
    cache: PrefixCache | None,
) -> LoopSetup:
    """Build the setup of the loop."""
    return LoopSetup(
        model=adapted.model,
        feeder=_make_feeder(prepared, "train", accelerator, cache),
        objective=objective,
        training=recipe.training,
        accelerator=accelerator,
        new_parameters=adapted.new_parameters
        | {f"{beside}.{name}" for beside, module in stage.modules.items() for name, _ in module.named_parameters()},
        rates=adapted.rates,
        eval_modules=adapted.eval_modules,
        guides=(*adapted.guides, *stage.guides),
        plan=stage.plan,
        window=stage.window,
        streams=[
            Stream(
                name,
                _make_feeder(replace(prepared, splits={name: encoded}), name, accelerator),
                batch_size,
                recipe.training.seed,
            )
            for name, (encoded, batch_size) in stage.streams.items()
        ],
    )


def _make_feeder(prepared: Prepared, split: str, accelerator: Accelerator, cache: PrefixCache | None = None) -> Feeder:
    """Build the feeder of a split; on a GPU, lengths are padded to multiples of 8."""
    multiple = 8 if accelerator.device.type == "cuda" else None
    return Feeder(prepared, split, accelerator.device, pad_to_multiple_of=multiple, cache=cache)


def predict_all(
    model: nn.Module, prepared: Prepared, accelerator: Accelerator, recipe: Recipe
) -> dict[str, np.ndarray]:
    """Give the probabilities of every split but train, over all processes.

    Args:
        model: A classifier on any device; it is moved to the accelerator's.
        prepared: Tokenized splits.
        accelerator: Device and processes.
        recipe: Its evaluation section limits the size of a forward pass.

    Returns:
        Split name to float64 (N, C).
    """
    config = recipe.evaluation
    return {
        split: predict_split(
            model, prepared, split, accelerator, batch_size=config.batch_size, max_tokens=config.max_tokens
        )
        for split in prepared.splits
        if split != "train"
    }


def predict_split(
    model: nn.Module,
    prepared: Prepared,
    split: str,
    accelerator: Accelerator,
    *,
    batch_size: int,
    max_tokens: int | None = None,
    cache: PrefixCache | None = None,
) -> np.ndarray:
    """Give the probabilities of every example of a split, over all processes.

    Args:
        model: A classifier on any device; it is moved to the accelerator's.
        prepared: Tokenized splits.
        split: Name of the split.
        accelerator: Device and processes.
        batch_size: Examples in one forward pass.
        max_tokens: Maximum number of tokens in one forward pass, padding included; None for no limit.
        cache: Hidden states of the model's frozen prefix.

    Returns:
        Float64, shape (N, C), in the form of ``to_probabilities``.
    """
    feeder = _make_feeder(prepared, split, accelerator, cache)
    feeder.packing = find_packing(model)
    if accelerator.device.type == "cpu" and any(each.dtype == torch.bfloat16 for each in model.parameters()):
        feeder.pad_to_few_widths()
    logits = predict_logits(
        model.to(accelerator.device),
        feeder,
        batch_size=batch_size,
        max_tokens=max_tokens,
        num_processes=accelerator.num_processes,
        rank=accelerator.process_index,
        gather=gather_object,
    )
    return to_probabilities(logits, prepared.labels)


def _make_evaluation(
    recipe: Recipe,
    prepared: Prepared,
    truth: np.ndarray,
    target: TargetScale,
    accelerator: Accelerator,
    cache: PrefixCache | None,
) -> Callable[[nn.Module], dict[str, float]]:
    """Build the evaluation: the selecting metric and the metrics of the recipe, in the target's unit."""
    wanted = list(dict.fromkeys([str(recipe.training.select_by), *(recipe.evaluation.metrics or [])]))
    config, is_number = recipe.evaluation, prepared.labels.kind == "regression"

    def evaluate(model: nn.Module) -> dict[str, float]:
        probabilities = predict_split(
            model,
            prepared,
            "validation",
            accelerator,
            batch_size=config.batch_size,
            max_tokens=config.max_tokens,
            cache=cache,
        )
        if is_number:
            probabilities = target.restore(probabilities)
        metrics = compute_metrics(truth, probabilities, prepared.labels, wanted)
        if prepared.labels.is_categorical:
            predicted = predict_labels(probabilities, prepared.labels)
            metrics["predicted_classes"] = float(len(np.unique(predicted)))
        return metrics

    return evaluate


@contextmanager
def use_fast_path(model: nn.Module, headed: PreTrainedModel | None) -> Iterator[None]:
    """Train faster inside this context; results stay the same except for the dropout masks.

    Args:
        model: The model that is trained.
        headed: The family's sequence-classification model inside ``model``, if its own head is trained; None if
            another head reads the encoder.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> with use_fast_path(layer, None):
        ...     sorted(vars(layer)) == sorted(vars(nn.Linear(2, 2)))
        True
    """
    is_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    last: nn.Module | None = None
    with ExitStack() as stack:
        if headed is not None and headed.config.model_type in LAST_MEETINGS:
            last = headed.get_submodule(find_parts(headed).layers[-1])
            # A fused layer skips the other tokens itself.
            if not (is_cpu and "forward" not in vars(last) and is_block(last)):
                stack.enter_context(read_first_token(headed))
        stack.enter_context(cheap_dropout(model))
        stack.enter_context(attend_in_parts(model))
        if is_cpu:
            stack.enter_context(block_layers(model, last))
        yield
