"""Frozen matrices in four or eight bits while something small beside them is trained."""

from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.errors import MissingExtraError, RecipeError
from nlp_transfer.models.heads import find_head_modules

__all__ = ["check_quantization", "find_gpu", "quantize_linears"]

Width = Literal["4bit", "8bit"]


def check_quantization(width: Width) -> None:
    """Make sure that this machine can do it, before anything is loaded.

    Raises:
        RecipeError: There is no NVIDIA GPU.
        MissingExtraError: bitsandbytes is not installed.
    """
    if not torch.cuda.is_available():
        raise RecipeError(
            [
                f"strategy.quantize: {width} needs an NVIDIA GPU, and there is none here. Remove it: on a CPU it would "
                "save no time."
            ]
        )
    try:
        import bitsandbytes  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise MissingExtraError("bitsandbytes", extra="quantized", purpose=f"strategy.quantize={width}") from error


def find_gpu() -> torch.device:
    """The GPU of this process."""
    return torch.device("cuda", torch.cuda.current_device())


def quantize_linears(model: PreTrainedModel, width: Width, device: torch.device) -> None:
    """Replace every linear layer of the encoder by one whose weights take four or eight bits, in place.

    Embeddings, norms, biases and the head stay in float32.

    Args:
        model: The family's own sequence-classification class.
        width: ``4bit``: NF4 with quantized scales. ``8bit``: integers with a scale a row.
        device: Where they are rounded, and stay.

    Source:
        Dettmers et al. 2023 (QLoRA), https://arxiv.org/abs/2305.14314; Dettmers et al. 2022 (LLM.int8),
        https://arxiv.org/abs/2208.07339.
    """
    import bitsandbytes as bnb

    heads = tuple(f"{name}." for name in find_head_modules(model))
    plain = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not f"{name}.".startswith(heads)
    ]
    for name, module in plain:
        sizes = (module.in_features, module.out_features, module.bias is not None)
        weight = module.weight.detach()
        if width == "4bit":
            layer = bnb.nn.Linear4bit(*sizes, quant_type="nf4", compress_statistics=True)
            layer.weight = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", compress_statistics=True)
        else:
            layer = bnb.nn.Linear8bitLt(*sizes, has_fp16_weights=False)
            layer.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
        layer.bias = module.bias
        model.set_submodule(name, layer.to(device))
