"""Layer-wise fine-tuning: some of the layers, or all at rates that fall from the top."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from nlp_transfer.contracts import Guide
from nlp_transfer.errors import RecipeError
from nlp_transfer.models.encoder import LoadedEncoder
from nlp_transfer.models.heads import draw_anew, list_head_parameters
from nlp_transfer.models.layers import EncoderParts, find_parts, list_biases, list_norms
from nlp_transfer.recipe.schema import LayerwiseConfig
from nlp_transfer.strategies.base import Adapted, PrefixPlan, Strategy

__all__ = ["STRATEGY", "GradualUnfreezing", "adapt_layerwise"]


class GradualUnfreezing(Guide):
    """Opens one group of parameters more at the start of every epoch.

    Args:
        parameters: The trained parameters by name.
        groups: Names of the parameters that open together; the first group is open from the start.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], groups: Sequence[Sequence[str]]) -> None:
        self._groups = [[parameters[name] for name in group] for group in groups]
        self._closed: list[nn.Parameter] = []

    def before_step(self, epoch: int, step: int) -> None:  # noqa: ARG002
        """Close what is not open in this epoch; backward passes end where everything below is closed."""
        self._closed = [parameter for group in self._groups[epoch + 1 :] for parameter in group]
        # Wrapped for several processes, every parameter must get a gradient; it is dropped before the update.
        if not torch.distributed.is_initialized():
            for number, group in enumerate(self._groups):
                for parameter in group:
                    parameter.requires_grad_(number <= epoch)

    def after_backward(self, trained: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        """Drop the gradients of what is closed: a parameter without one is left alone, moments and decay included."""
        for parameter in self._closed:
            parameter.grad = None


def adapt_layerwise(loaded: LoadedEncoder, config: LayerwiseConfig) -> Adapted:
    """Freeze the bottom, choose what moves above it, and set each layer's rate.

    Args:
        loaded: The encoder with its new head.
        config: What is frozen, when the rest opens, and how rates fall.

    Returns:
        The same model, the chosen parameters trainable.

    Raises:
        RecipeError: The encoder has fewer layers, shares one among all, or lacks biases.

    Source:
        Howard and Ruder 2018, sections 3.2 and 3.3, https://arxiv.org/abs/1801.06146 (gradual unfreezing,
        discriminative rates); Clark et al. 2020, https://arxiv.org/abs/2003.10555 (decay per layer); Ben Zaken et al.
        2021, https://arxiv.org/abs/2106.10199 (biases only); Zhang et al. 2021, https://arxiv.org/abs/2006.05987 (top
        layers drawn anew).
    """
    model = loaded.model
    parts = find_parts(model)
    num_frozen = _count_frozen(parts, config, model)
    for layer in parts.layers[len(parts.layers) - config.reinit_layers :]:
        draw_anew(model, layer)
    prefix = parts.list_prefix(num_frozen) if config.freeze_embeddings else ()
    inside = tuple(f"{name}." for name in prefix)
    chosen = _choose(model, config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen and not name.startswith(inside))
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    depths = _measure_depths(model, parts)
    guides: tuple[Guide, ...] = ()
    if config.unfreeze == "gradual":
        groups = [[name for name in trained if depths[name] == depth] for depth in range(len(parts.layers) + 2)]
        # The head and the top layer open together: a head alone would be the frozen strategy.
        groups = [groups[0] + groups[1], *groups[2:]]
        guides = (GradualUnfreezing(trained, [group for group in groups if group]),)
    return Adapted(
        model,
        "transformers",
        eval_modules=prefix,
        new_parameters=frozenset(loaded.new_parameters),
        rates={name: config.layer_decay ** depths[name] for name in trained if config.layer_decay < 1},
        guides=guides,
        prefix=PrefixPlan(parts, num_frozen) if prefix and config.cache_prefix else None,
    )


def _count_frozen(parts: EncoderParts, config: LayerwiseConfig, model: PreTrainedModel) -> int:
    """How many layers stay as they are."""
    total = len(parts.layers)
    wanted = config.freeze_layers
    if wanted is None:
        wanted = 0 if parts.is_shared or config.only != "all" or config.unfreeze == "gradual" else total // 2
    family = model.config.model_type
    if parts.is_shared and (wanted or config.reinit_layers):
        key = "freeze_layers" if wanted else "reinit_layers"
        raise RecipeError(
            [f"strategy.{key}: the layers of {family} share their weights: none can be chosen alone. Set it to 0."]
        )
    if wanted + config.reinit_layers > total:
        key = "freeze_layers" if wanted > total else "reinit_layers"
        raise RecipeError(
            [
                f"strategy.{key}: expected at most {total} layers frozen or drawn anew, as {family} has, got {wanted} "
                f"frozen and {config.reinit_layers} drawn anew."
            ]
        )
    if wanted and not config.freeze_embeddings:
        raise RecipeError(
            ["strategy.freeze_embeddings: expected true where layers above are frozen. Set freeze_layers to 0."]
        )
    return wanted


def _choose(model: PreTrainedModel, config: LayerwiseConfig) -> set[str]:
    """Names of the parameters that may move: the head always, of the encoder what ``only`` says."""
    head = set(list_head_parameters(model))
    if config.only == "all":
        return {name for name, _ in model.named_parameters()}
    found = list_biases(model) if config.only == "biases" else list_norms(model)
    if not found:
        raise RecipeError(
            [f"strategy.only: the encoder ({model.config.model_type}) has no {config.only}. Use only=all or norms."]
        )
    return head | set(found)


def _measure_depths(model: PreTrainedModel, parts: EncoderParts) -> dict[str, int]:
    """Distance of each parameter from the top: 0 for the head, 1 for the top layer, the most for embeddings."""
    head = set(list_head_parameters(model))
    total = len(parts.layers)
    depths = {}
    for name, _ in model.named_parameters():
        layer = next((number for number, own in enumerate(parts.layers) if name.startswith(f"{own}.")), None)
        if name in head:
            depths[name] = 0
        elif layer is not None:
            depths[name] = total - layer
        elif name.startswith(tuple(f"{own}." for own in parts.embeddings)):
            depths[name] = total + 1
        else:
            # A final norm goes with the top layer, a convolution beside the first layer with that one.
            depths[name] = total if name.startswith(tuple(f"{own}." for own in parts.beside)) else 1
    return depths


STRATEGY = Strategy(kind="layerwise", adapt=adapt_layerwise)
