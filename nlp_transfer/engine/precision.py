"""Which device and which number format a run uses."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

import torch

from nlp_transfer.engine.machine import compare_formats, compare_predictions, read_measured, write_measured
from nlp_transfer.errors import RecipeError

__all__ = [
    "Precision",
    "choose_device",
    "choose_precision",
    "choose_prediction",
    "count_processes",
    "keep_measured",
]

LEAST_GAIN = 1.1
"""Times as fast as float32 that bf16 must be on a CPU to be worth its rounding; chosen."""

LEAST_PREDICTION_GAIN = 1.5
"""Times as fast as float32 that bf16 must be on a CPU to be worth the second passes; chosen."""


_kept: ContextVar[Path | None] = ContextVar("kept", default=None)
KEPT_KEY = "bf16 training"


@contextlib.contextmanager
def keep_measured(place: Path) -> Iterator[None]:
    """Have a run that goes on compute in the number format in which it began.

    A machine that is busy is measured anew by every process, and two may find two formats: the same command would then
    end in other bits than the run that it goes on with. So what is measured for a run lies in its folder.

    Args:
        place: File for it; written when a format is first chosen. Inside another such block it is that one's file.

    Yields:
        Nothing.
    """
    token = _kept.set(_kept.get() or place)
    try:
        yield
    finally:
        _kept.reset(token)


def _find_gain() -> float:
    """Times as fast as in float32 that a step in bf16 is here, as the run at hand began with."""
    place = _kept.get()
    if place is None:
        return compare_formats()
    known = read_measured(place)
    if KEPT_KEY not in known:
        known[KEPT_KEY] = compare_formats()
        write_measured(place, known)
    return known[KEPT_KEY]


def choose_device(wanted: str) -> str:
    """Choose the device of a run.

    Args:
        wanted: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns:
        A device kind that is here.

    Raises:
        RecipeError: The wanted device is not on this machine.

    Example:
        >>> choose_device("cpu")
        'cpu'
    """
    here = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        return "cuda" if here["cuda"] else "mps" if here["mps"] else "cpu"
    if not here[wanted]:
        found = ", ".join(kind for kind, is_here in here.items() if is_here)
        raise RecipeError(f"training.device: {wanted} is not on this machine. Here: {found}.")
    return wanted


def count_processes() -> int:
    """How many processes were launched to train together, as told before any of them has met the others."""
    return int(os.environ.get("WORLD_SIZE", "1"))


class Precision(NamedTuple):
    """A number format, and why it was chosen."""

    format: str
    reason: str


def choose_precision(wanted: str, device: str) -> Precision:
    """Choose the number format that a model computes in; the weights that are updated and saved are float32.

    ``auto`` takes bf16 on GPUs that have it. On a CPU it takes bf16 where a training step was measured to be faster
    in it by at least a tenth, float32 otherwise and where several processes add their gradients.

    Args:
        wanted: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        device: Device kind of the run.

    Returns:
        ``fp32``, ``bf16`` or ``fp16``, with the reason.

    Raises:
        RecipeError: The device cannot train in that format.

    Example:
        >>> choose_precision("fp32", "cpu").format
        'fp32'
    """
    if wanted == "fp16" and device != "cuda":
        raise RecipeError(f"training.precision: fp16 trains on cuda only, this run is on {device}. Use fp32 or auto.")
    if wanted != "auto":
        return Precision(wanted, "asked for")
    if device == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return Precision("bf16", "this GPU computes in it") if has else Precision("fp32", "this GPU has no bf16")
    if device != "cpu":
        return Precision("fp32", f"{device} is not measured")
    if count_processes() > 1:
        return Precision("fp32", "several processes add their gradients")
    gain = _find_gain()
    found = f"a step in bf16 was measured to take {1 / gain:.2g} times as long as in fp32 here"
    return Precision("bf16" if gain >= LEAST_GAIN else "fp32", found)


def choose_prediction(wanted: str, device: str) -> Precision:
    """Choose the number format in which labels are predicted; what bf16 leaves in doubt goes through float32 again.

    Args:
        wanted: ``auto``, ``fp32`` or ``bf16``.
        device: Device kind.

    Returns:
        ``fp32`` or ``bf16``, with the reason. ``auto`` is bf16 on a CPU where a pass was measured to be faster in it by
        at least half, as second passes cost time; float32 elsewhere, where that is not measured.

    Raises:
        RecipeError: There is no such format, or the device is no CPU.

    Example:
        >>> choose_prediction("fp32", "cpu").format
        'fp32'
    """
    if wanted not in ("auto", "fp32", "bf16"):
        raise RecipeError(f"precision: expected auto, fp32 or bf16, got {wanted!r}.")
    if wanted == "bf16" and device != "cpu":
        raise RecipeError(f"precision: bf16 predicts on a cpu only, this classifier is on {device}. Use fp32 or auto.")
    if wanted != "auto":
        return Precision(wanted, "asked for")
    if device != "cpu":
        return Precision("fp32", f"{device} is not measured")
    gain = compare_predictions()
    found = f"a pass in bf16 was measured to take {1 / gain:.2g} times as long as in fp32 here"
    return Precision("bf16" if gain >= LEAST_PREDICTION_GAIN else "fp32", found)
