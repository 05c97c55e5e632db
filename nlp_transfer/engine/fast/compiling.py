"""The layers of an encoder, compiled one by one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.engine.fast.packing import Packing
from nlp_transfer.errors import RecipeError

__all__ = ["compile_layers", "find_compiler"]


def find_compiler(device: torch.device) -> str | None:
    """Say why nothing can be compiled for a device; None where it can."""
    if device.type == "cpu":
        # What torch itself looks for, see torch._inductor.config.cpp.cxx.
        return None if any(map(shutil.which, ("g++", "clang++", "c++", "cl"))) else "there is no C++ compiler"
    if device.type != "cuda":
        return f"torch compiles nothing for {device.type} here"
    return None if torch.utils._triton.has_triton() else "triton, which compiles for the GPU, is not installed"


@contextmanager
def compile_layers(model: nn.Module, device: torch.device, wanted: str) -> Iterator[str]:
    """Have torch compile the layers of an encoder for a while.

    Each layer is compiled by itself, and alike ones share what is made, so that the first step does not wait for the
    whole model. Lengths are left open from the start: a batch of another shape compiles nothing anew. Modules, names
    and weights stay what they are, so that checkpoints and artefacts know nothing of it.

    Args:
        model: On its device.
        device: That device.
        wanted: ``auto``: on GPUs; ``on``; ``off``.

    Yields:
        One sentence on what was done, and why.

    Raises:
        RecipeError: Compiling is asked for and not possible; says why.
    """
    if wanted == "off" or (wanted == "auto" and device.type != "cuda"):
        yield "nothing is compiled: " + ("asked for" if wanted == "off" else f"no gain was measured on {device.type}")
        return
    reason, layers = find_compiler(device), _list_layers(model)
    if reason is None and not layers:
        reason = "no list of layers was found in it"
    if reason is not None:
        if wanted == "on":
            raise RecipeError(
                f"training.compile: expected a model and a machine to compile on, but {reason}. Use auto."
            )
        yield f"nothing is compiled: {reason}"
        return
    for layer in layers:
        # Hooks stay outside, as they tell a layer of each batch.
        layer.forward = torch.compile(layer.forward, dynamic=True)
    try:
        yield f"{len(layers)} layers are compiled"
    finally:
        for layer in layers:
            del layer.forward


def _list_layers(model: nn.Module) -> list[nn.Module]:
    """Layers of every encoder inside, but those that something else stands in for (cached states, for instance)."""
    encoders = [
        each
        for each in model.modules()
        if isinstance(each, PreTrainedModel) and Packing.find_end(each) is not None and hasattr(each, "embeddings")
    ]
    found = [layer for encoder in encoders for layer in Packing.find_layers(encoder)]
    return [layer for layer in found if "forward" not in layer.__dict__]
