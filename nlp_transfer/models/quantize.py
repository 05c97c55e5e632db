"""Frozen matrices in four or eight bits while something small beside them is trained."""

from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.errors import MissingExtraError, RecipeError
from nlp_transfer.models.layers import find_lora_targets

__all__ = ["find_gpu", "quantize_linears"]

Width = Literal["4bit", "8bit"]


def find_gpu(width: Width) -> torch.device:
    """Find the GPU of this process, and make sure that it can be used so.

    Args:
        width: What it is wanted for.

    Returns:
        The device.

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

    for name in find_lora_targets(model, ["all-linear"]):
        module = model.get_submodule(name)
        assert isinstance(module, nn.Linear)
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
