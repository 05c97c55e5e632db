"""The layer that gives a classifier's logits, and how a regression's unit is written into it."""

from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.errors import EncoderError
from nlp_transfer.models.custom import CustomClassifier
from nlp_transfer.models.heads import find_head_modules
from nlp_transfer.models.merge import is_adapter

__all__ = ["find_classifier", "find_output_layer", "rescale_layer", "rescale_output"]


def find_output_layer(model: PreTrainedModel) -> nn.Linear:
    """Find the linear layer that gives a classifier's logits.

    Args:
        model: The family's own sequence-classification class; what peft put around its head is looked through.

    Returns:
        The layer; of a head that peft saves, the copy that is trained.

    Raises:
        EncoderError: No layer, or more than one, could be it, or it has no bias.
    """
    heads = tuple(f"{name}." for name in find_head_modules(model))
    found = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and module.out_features == model.config.num_labels
        and f"{name}.".startswith(heads)
        and ".original_module" not in name
    ]
    if len(found) != 1 or found[0].bias is None:
        what = "no bias in it" if len(found) == 1 else f"{len(found)} such layers"
        raise EncoderError(
            f"encoder.name: task.kind=regression expected a head that ends in one linear layer with a bias, to write "
            f"the unit of the target into, came {what} in {type(model).__name__}. Name an encoder such as BERT, "
            "RoBERTa or DeBERTa."
        )
    return found[0]


def find_classifier(model: nn.Module) -> PreTrainedModel:
    """Find the family's own sequence-classification class in what a strategy trains.

    Args:
        model: That class, what peft made of it, or a classifier of this package's own around it.
    """
    if isinstance(model, CustomClassifier):
        return find_classifier(model.encoder)
    plain = model.get_base_model() if is_adapter(model) else model
    assert isinstance(plain, PreTrainedModel)
    return plain


def rescale_layer(layer: nn.Linear, mean: float, deviation: float) -> None:
    """Let a layer that gives standard deviations from a mean give numbers in the target's own unit, in place.

    Args:
        layer: With a bias.
        mean: Of the targets that the layer was trained on.
        deviation: Their standard deviation.

    Example:
        >>> import torch
        >>> layer = nn.Linear(2, 1)
        >>> before = layer(torch.ones(1, 2)).item()
        >>> rescale_layer(layer, 300.0, 100.0)
        >>> abs(layer(torch.ones(1, 2)).item() - (100 * before + 300)) < 1e-3
        True
    """
    for parameter, shift in ((layer.weight, 0.0), (layer.bias, mean)):
        # In float64, which some devices lack: each figure is rounded once.
        wide = parameter.detach().cpu().double() * deviation + shift
        parameter.data = wide.to(parameter.device, parameter.dtype)


def rescale_output(model: nn.Module, mean: float, deviation: float) -> None:
    """Let a trained regression give numbers in the target's own unit, whatever form it is saved in; in place.

    Args:
        model: A family's own class, one that peft wraps, or a custom one.
        mean: Of the targets that it was trained on.
        deviation: Their standard deviation.

    Raises:
        EncoderError: Its head does not end in one linear layer.
    """
    if isinstance(model, CustomClassifier):
        model.rescale(mean, deviation)
        return
    rescale_layer(find_output_layer(find_classifier(model)), mean, deviation)
