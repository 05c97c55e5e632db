"""What comes before the training: states of frozen lower layers are cached, and the head is fitted."""

from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.contracts import Hook, Prepared, Track, track_nothing
from nlp_transfer.engine.fast.prefix import Prefix, PrefixCache
from nlp_transfer.engine.predict.forward import Feeder, cache_prefix
from nlp_transfer.engine.predict.hidden_states import FrozenReader, find_reader
from nlp_transfer.engine.train.loop import LoopSetup, count_steps, run_loop
from nlp_transfer.engine.train.objectives import Objective
from nlp_transfer.models.heads import list_head_parameters
from nlp_transfer.recipe.schema import TrainingConfig
from nlp_transfer.strategies import PrefixPlan, Probe

__all__ = ["HookMaker", "build_cache", "fit_probe"]

HookMaker = Callable[[int, str], Sequence[Hook]]


def build_cache(
    model: PreTrainedModel,
    plan: PrefixPlan | None,
    prepared: Prepared,
    device: torch.device,
    track: Track = track_nothing,
    *,
    half: bool = False,
) -> PrefixCache | None:
    """Run the frozen lower layers of an encoder over train and validation, and cache their hidden states.

    Args:
        model: The plain classifier, on the device.
        plan: The frozen layers; None to cache nothing.
        prepared: Tokenized splits.
        device: Where the model is.
        track: Shows progress.
        half: Whether the layers may run in bf16.

    Returns:
        The prefix with its hidden states; ``prefix.remove()`` ends its use. None without a plan.

    Raises:
        StorageError: The disk has no room for the hidden states.
    """
    if plan is None:
        return None
    seen = [split for split in ("train", "validation") if split in prepared.splits]
    # Must run before the prefix replaces forward methods of the modules.
    readers = _find_readers(model, plan, prepared, seen) if half else {}
    return cache_prefix(_build_prefix(model, plan), prepared, seen, device, track, readers)


def _find_readers(
    model: PreTrainedModel, plan: PrefixPlan, prepared: Prepared, splits: Sequence[str]
) -> dict[str, FrozenReader]:
    """Find readers that can compute the prefix's hidden states in its place; none if the layers share weights."""
    if plan.parts.is_shared:
        return {}
    first_only = plan.num_layers == len(plan.parts.layers) and not _averages(model)
    found = {split: find_reader(model, prepared, split, [plan.num_layers], first_only=first_only) for split in splits}
    return {split: reader for split, reader in found.items() if reader is not None}


def fit_probe(
    model: nn.Module,
    probe: Probe,
    prepared: Prepared,
    training: TrainingConfig,
    objective: Objective,
    accelerator: Accelerator,
    make_hooks: HookMaker | None,
    label: str,
    track: Track = track_nothing,
) -> None:
    """Train the head alone, in place, on cached hidden states of the whole encoder.

    Args:
        model: The plain classifier, on its device.
        probe: Epochs and learning rate.
        prepared: Tokenized splits.
        training: The recipe's training section.
        objective: The loss of the training that follows.
        accelerator: Places and wraps the model.
        make_hooks: Makes the hooks of the loop.
        label: Label of the progress bar.
        track: Shows the progress of caching.
    """
    assert isinstance(model, PreTrainedModel)
    head = set(list_head_parameters(model))
    was_open = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in head)
    cache = cache_prefix(_build_prefix(model, probe.prefix), prepared, ["train"], accelerator.device, track)
    update = {"epochs": float(probe.epochs), "max_steps": None, "learning_rate": probe.learning_rate}
    training = training.model_copy(
        update={**update, "head_learning_rate": None, "restore_best": False, "ema_share": 0.0}
    )
    feeder = Feeder(prepared, "train", accelerator.device, cache=cache)
    hooks = make_hooks(count_steps(feeder.encoded.num_examples, training), f"{label}, head") if make_hooks else ()
    run_loop(
        LoopSetup(
            model=model,
            feeder=feeder,
            objective=objective,
            training=training,
            accelerator=accelerator,
            eval_modules=(model.base_model_prefix,),
            hooks=hooks,
        )
    )
    cache.prefix.remove()
    accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    accelerator.free_memory()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in was_open)


def _build_prefix(model: PreTrainedModel, plan: PrefixPlan) -> Prefix:
    """Find the modules of a frozen prefix and its last module."""
    parts, num_layers = plan.parts, plan.num_layers
    inside = parts.layers[:num_layers] + (parts.beside if num_layers else ())
    last = (parts.beside or parts.layers)[0] if num_layers == 1 else (parts.carriers + parts.layers[:num_layers])[-1]
    return Prefix(
        model,
        carriers=parts.carriers,
        layers=inside,
        last=last,
        first_only=num_layers == len(parts.layers) and not _averages(model),
        is_shared=parts.is_shared,
    )


def _averages(model: PreTrainedModel) -> bool:
    """Whether the head averages all tokens, as ModernBERT's can; the heads of other families read the first token."""
    return bool(getattr(model.config, "classifier_pooling", "cls") == "mean")
