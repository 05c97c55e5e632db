"""Whether rows can go through a model without padding, tried out and not guessed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_transfer.engine.fast.packing import KERNEL, Packing, watch_calls
from nlp_transfer.engine.predict.forward import Feeder, compute_logits
from nlp_transfer.errors import RecipeError

__all__ = ["Unpadded", "pack_predictions", "pack_rows"]

GAP_WHOLE, GAP_HALF = 1e-3, 5e-2
"""Largest gap between logits of packed and of padded rows, as a share of the largest logit (or of 1), in float32 and
in a shorter format; chosen: a token that reads another row's is off by far more."""

OLDEST = (8, 0)
"""Compute capability that flash attention needs, which the kernel calls: Ampere."""


@dataclass(frozen=True)
class Unpadded:
    """What was decided.

    Attributes:
        packing: The way for packed rows; None where there is none.
        trains: Whether training goes that way; evaluations do wherever there is one.
        said: One sentence on what was decided, and why.
    """

    packing: Packing | None
    trains: bool
    said: str


@contextmanager
def pack_rows(
    model: nn.Module, feeder: Feeder, wanted: str, *, is_half: bool, reads_first: bool = False
) -> Iterator[Unpadded]:
    """Let rows through a model without padding between them, where that is possible and asked for.

    Whether the model's family asks transformers for its attention, and whether packed rows then give the logits of
    padded ones, is tried on a few rows of the split in float32. Torch's kernel has no dropout of attention weights: a
    model that has such dropout trains padded unless packing is asked for outright.

    Args:
        model: On its device, unwrapped.
        feeder: Its rows; told to lay them out inside this context where training goes that way.
        wanted: ``auto``: on GPUs, where it changes nothing but the time; ``on``: without attention dropout, and
            anywhere; ``off``.
        is_half: Whether the model computes in bf16 or fp16.
        reads_first: Whether the model's head is the family's own, so that the last layer may be cut short.

    Yields:
        What was decided.

    Raises:
        RecipeError: Packing is asked for and not possible; says why.

    Source:
        Zeng et al. 2022, grouped and unpadded BERT, https://arxiv.org/abs/2208.08124. Departure: embeddings, pooler
        and head stay padded, so that every family's own code places positions and reads its states.
    """
    device = feeder.device
    if wanted == "off" or (wanted == "auto" and not _packs_by_itself(device)):
        yield Unpadded(None, False, "rows are padded: asked for" if wanted == "off" else _say_device(device))
        return
    encoder = _find_encoder(model)
    reason = _find_obstacle(model, encoder, feeder, is_half=is_half)
    if encoder is None or reason is not None:
        yield _stay_padded(reason or NO_ENCODER, wanted)
        return
    packing = Packing(encoder, trims=reads_first)
    with packing.installed(model):
        reason, rate = _try_out(model, feeder, packing)
        trains = reason is None and (wanted == "on" or rate == 0.0)
        if trains:
            feeder.packing = packing
            dropped = f"; attention dropout of {rate:g} is left out" if rate else ""
            try:
                yield Unpadded(packing, True, f"rows are packed, without padding{dropped}")
            finally:
                feeder.packing = None
            return
        if reason is None:
            yield Unpadded(packing, False, KEEPS_DROPOUT.format(rate=rate))
            return
    yield _stay_padded(reason, wanted)


@contextmanager
def pack_predictions(model: nn.Module, feeder: Feeder, *, wanted: str = "auto", is_half: bool) -> Iterator[Unpadded]:
    """Let rows through a model without padding where nothing is trained, so that its dropout is no matter.

    Args:
        model: On its device.
        feeder: Its rows; told to lay them out inside this context.
        wanted: As for ``pack_rows``.
        is_half: Whether the model computes in bf16 or fp16: in float32 the logits are those of padded rows on a GPU
            too, as its kernel does not take it.

    Yields:
        What was decided.

    Raises:
        RecipeError: Packing is asked for and not possible.
    """
    with pack_rows(model, feeder, wanted, is_half=is_half) as unpadded:
        feeder.packing = unpadded.packing
        try:
            yield unpadded
        finally:
            feeder.packing = None


NO_ENCODER = "no encoder with embeddings and a list of layers was found in it"
KEEPS_DROPOUT = (
    "training rows are padded: without padding the attention dropout of {rate:g} would be left out. "
    "training.packing=on allows that"
)


def _packs_by_itself(device: torch.device) -> bool:
    """Whether a device has attention without padding that is worth it."""
    return device.type == "cuda"


def _say_device(device: torch.device) -> str:
    """Why a device other than a GPU pads."""
    return f"rows are padded: {device.type} has no attention without padding that is faster"


def _stay_padded(reason: str, wanted: str) -> Unpadded:
    """Say why rows are padded, or refuse what was asked for."""
    if wanted == "on":
        raise RecipeError(
            f"training.packing: expected a model that packed rows can go through, but {reason}. Use auto."
        )
    return Unpadded(None, False, f"rows are padded: {reason}")


def _find_encoder(model: nn.Module) -> PreTrainedModel | None:
    """The one base model inside of a classifier, however deep it is wrapped; None where there are none or several."""
    found = [
        each
        for each in model.modules()
        if isinstance(each, PreTrainedModel)
        and "embeddings" in dict(each.named_children())
        and Packing.find_end(each) is not None
        and Packing.find_layers(each)
    ]
    return found[0] if len(found) == 1 else None


def _find_obstacle(model: nn.Module, encoder: PreTrainedModel | None, feeder: Feeder, *, is_half: bool) -> str | None:
    """What can be told without running anything."""
    if encoder is None:
        return NO_ENCODER
    # Only peft's wrapper has such a thing; whoever has none is spared importing it.
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return "its prompts stand in front of every row, padded as they are"
    config = encoder.config
    if config._attn_implementation != "sdpa":
        return f"its attention is {config._attn_implementation!r}, not that of torch"
    if feeder.pads_left:
        return "its tokenizer pads on the left"
    if feeder.has_prefix:
        return "the states of its frozen layers are cached (strategy.cache_prefix)"
    if feeder.device.type == "cuda":
        if KERNEL is None:
            return f"torch {torch.__version__} has no attention without padding"
        if torch.cuda.get_device_capability(feeder.device) < OLDEST:
            return "the GPU is older than its attention without padding"
        if not is_half:
            return "attention without padding computes in bf16 or fp16, and this runs in fp32"
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        if size % 8 or size > 256:
            return f"its attention heads are {size} wide, and the kernel wants a multiple of 8 up to 256"
    return None


def _try_out(model: nn.Module, feeder: Feeder, packing: Packing) -> tuple[str | None, float]:
    """Run a few rows both ways; gives what is wrong, and the dropout rate of the attention weights."""
    order = np.argsort(feeder.lengths, kind="stable")
    some = np.unique(order[[0, len(order) // 2, -1]])
    modes = [(module, module.training) for module in model.modules()]
    devices = [feeder.device] if feeder.device.type == "cuda" else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices), watch_calls() as rates:
            model.eval()
            padded = _run(model, feeder, some, None)
            with watch_calls() as calls:
                packed = _run(model, feeder, some, packing)
            model.train()
            _run(model, feeder, some, packing)
    finally:
        for module, mode in modes:
            module.training = mode
    needed = packing.encoder.config.num_hidden_layers
    if len(calls) != needed:
        family = packing.encoder.config.model_type
        return f"{family} computes its own attention ({len(calls)} of {needed} layers ask for one)", 0.0
    is_whole = all(p.dtype == torch.float32 for p in model.parameters())
    gap = float((padded - packed).abs().max() / padded.abs().max().clamp_min(1.0))
    if not gap <= (GAP_WHOLE if is_whole else GAP_HALF):
        return f"packed rows gave other logits than padded ones, by {gap:.2g}", 0.0
    return None, max(rates)


def _run(model: nn.Module, feeder: Feeder, examples: np.ndarray, packing: Packing | None) -> Tensor:
    """Logits of some examples, packed or padded."""
    feeder.packing = packing
    try:
        return compute_logits(model, feeder.feed(examples)).double()
    finally:
        feeder.packing = None
