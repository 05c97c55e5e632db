"""Full fine-tuning: every weight of the encoder and the head moves."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from nlp_transfer.contracts import Guide
from nlp_transfer.models.encoder import LoadedEncoder
from nlp_transfer.models.heads import list_head_parameters
from nlp_transfer.models.layers import find_parts
from nlp_transfer.recipe.schema import FullConfig
from nlp_transfer.strategies.base import Adapted, PrefixPlan, Probe, Strategy

__all__ = ["STRATEGY", "Mixout", "PullToStart", "adapt_full"]


class PullToStart(Guide):
    """Adds the gradient of ``strength / 2 * |w - w0|^2`` once an update, whatever the window was split into.

    Args:
        parameters: What is pulled; where they stand now is where they are pulled to.
        strength: Weight of the penalty.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], strength: float) -> None:
        self._pairs = [(parameter, parameter.detach().clone()) for parameter in parameters]
        self._strength = strength

    def after_backward(self, trained: Mapping[str, Tensor]) -> None:  # noqa: ARG002
        """Add the penalty's gradient to what the window gave."""
        with torch.no_grad():
            for number, (parameter, start) in enumerate(self._pairs):
                if start.device != parameter.device:
                    start = start.to(parameter.device)
                    self._pairs[number] = (parameter, start)
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - start, alpha=self._strength)


class Mixout(nn.Module):
    """Swaps a random share of a matrix for its pretrained figures, and keeps the expected step the same.

    Args:
        start: The pretrained matrix.
        share: Probability that a figure is swapped.
    """

    def __init__(self, start: Tensor, share: float) -> None:
        super().__init__()
        self.register_buffer("start", start.detach().clone(), persistent=False)
        self.share = share

    def forward(self, weight: Tensor) -> Tensor:
        """Mix in training mode; hand the matrix on as it is in evaluation mode."""
        if not self.training:
            return weight
        start: Tensor = self.start  # type: ignore[assignment]
        kept = torch.empty_like(weight).bernoulli_(1 - self.share) / (1 - self.share)
        return start + (weight - start) * kept


def adapt_full(loaded: LoadedEncoder, config: FullConfig) -> Adapted:
    """Open every weight for training.

    Args:
        loaded: The encoder with its new head.
        config: What holds the weights near where they were pretrained, and how the head begins.

    Returns:
        The same model, all of it trainable.

    Source:
        Devlin et al. 2019, section 3.2, https://arxiv.org/abs/1810.04805; Li et al. 2018 (L2-SP),
        https://arxiv.org/abs/1802.01483, with the head left to weight decay; Lee et al. 2020 (mixout),
        https://arxiv.org/abs/1909.11299, on the linear layers of the encoder; Kumar et al. 2022 (LP-FT),
        https://arxiv.org/abs/2202.10054.
    """
    model = loaded.model
    model.requires_grad_(True)
    new = frozenset(loaded.new_parameters)
    head = set(list_head_parameters(model))
    guides: tuple[Guide, ...] = ()
    if config.l2_sp:
        pulled = [parameter for name, parameter in model.named_parameters() if name not in head]
        guides = (PullToStart(pulled, config.l2_sp),)
    finish = None
    if config.mixout:
        mixed = [
            module
            for name, module in model.named_modules()
            if isinstance(module, nn.Linear) and f"{name}.weight" not in head
        ]
        for module in mixed:
            parametrize.register_parametrization(module, "weight", Mixout(module.weight, config.mixout))
        finish = _remove_mixout
    probe = None
    if config.head_init == "probe":
        parts = find_parts(model)
        probe = Probe(
            PrefixPlan(parts, len(parts.layers)), epochs=config.probe_epochs, learning_rate=config.probe_learning_rate
        )
    return Adapted(model, "transformers", new_parameters=new, guides=guides, to_artifact=finish, probe=probe)


def _remove_mixout(model: nn.Module) -> nn.Module:
    """Leave the trained matrices where they were."""
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
    return model


STRATEGY = Strategy(kind="full", adapt=adapt_full)
