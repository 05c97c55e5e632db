"""Which device and which number format a run uses."""

import torch

from nlp_transfer.errors import RecipeError

__all__ = ["choose_device", "choose_precision"]


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


def choose_precision(wanted: str, device: str) -> str:
    """Choose the number format of the forward and backward pass; the weights themselves stay float32.

    ``auto`` takes bf16 on GPUs that have it and float32 elsewhere: under autocast a CPU was slower in bf16 than in
    float32.

    Args:
        wanted: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        device: Device kind of the run.

    Returns:
        ``fp32``, ``bf16`` or ``fp16``.

    Raises:
        RecipeError: The device cannot train in that format.

    Example:
        >>> choose_precision("auto", "cpu")
        'fp32'
    """
    if wanted == "auto":
        return "bf16" if device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if wanted == "fp16" and device != "cuda":
        raise RecipeError(f"training.precision: fp16 trains on cuda only, this run is on {device}. Use fp32 or auto.")
    return wanted
