"""Compute in bf16, update in float32."""

import torch
from torch import nn

__all__ = ["Masters"]


class Masters:
    """Float32 weights beside a model that computes in bf16.

    A bf16 number has eight bits for its digits: updates of less than a 256th of a weight would be lost if they were
    added to it. So they are added to float32 copies, and the model is given those, rounded. Frozen weights are rounded
    too, and come back as they were.

    Args:
        model: Its float32 parameters become bf16; buffers stay, as positions do not survive rounding.

    Attributes:
        trained: Name of a trained parameter to its float32 weights: what the optimizer updates.

    Source:
        Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740, with bf16, which needs no scaling of the loss.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> masters = Masters(layer)
        >>> layer.weight.dtype, masters.trained["weight"].dtype
        (torch.bfloat16, torch.float32)
        >>> masters.put_back()
        >>> layer.weight.dtype
        torch.float32
    """

    def __init__(self, model: nn.Module) -> None:
        self.trained: dict[str, nn.Parameter] = {}
        # A parameter of the model, and what it has in float32.
        self._trained: list[tuple[nn.Parameter, nn.Parameter]] = []
        self._frozen: list[tuple[nn.Parameter, torch.Tensor]] = []
        for name, parameter in model.named_parameters():
            if parameter.dtype != torch.float32:
                continue
            if parameter.requires_grad:
                self.trained[name] = nn.Parameter(parameter.data)
                self._trained.append((parameter, self.trained[name]))
            else:
                self._frozen.append((parameter, parameter.data))
            parameter.data = parameter.data.to(torch.bfloat16)

    @property
    def lower(self) -> dict[nn.Parameter, nn.Parameter]:
        """What each float32 weight stands beside."""
        return {master: parameter for parameter, master in self._trained}

    def take_gradients(self) -> None:
        """Add the model's gradients to those taken before, in float32, and leave it none.

        Called after every part of a window: summed in bf16, the parts would be rounded once for each of them.
        """
        for parameter, master in self._trained:
            if parameter.grad is None:
                continue
            gradient = parameter.grad.float()
            master.grad = gradient if master.grad is None else master.grad.add_(gradient)
            parameter.grad = None

    def hand_down(self) -> None:
        """Give the model the weights as they are now, rounded."""
        with torch.no_grad():
            for parameter, master in self._trained:
                parameter.copy_(master)

    def put_back(self) -> None:
        """Give the model its float32 weights for good."""
        for parameter, whole in (*self._trained, *self._frozen):
            parameter.data = whole.data
