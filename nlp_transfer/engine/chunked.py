"""AdamW on float32 weights beside a bf16 model, piece by piece, so that each piece passes memory once."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["ChunkedAdamW"]

ELEMENTS = 1 << 18
"""Weights in a piece: with gradient and moments few enough to stay in a processor's cache; chosen."""


class _Part(NamedTuple):
    """Some weights of one parameter: the model's parameter, its float32 weights, and which elements."""

    parameter: nn.Parameter
    master: nn.Parameter
    start: int
    end: int


class ChunkedAdamW(torch.optim.AdamW):
    """Torch's fused AdamW, with the rounding of gradients and weights around it done piece by piece.

    One after the other, over all weights each time, gradients would become float32, be clipped, be used, and the
    model be given the new weights: most of an update's time is spent fetching them. State and results are those of
    ``torch.optim.AdamW(fused=True)``.

    Args:
        groups: As torch takes them; the parameters are float32 weights.
        models: The bf16 parameter of the model for each of those, which has the gradients and gets the weights.
        **settings: Those of ``torch.optim.AdamW``.

    Attributes:
        factor: What gradients are multiplied with in the next step: clipping's.

    Example:
        >>> half, master = nn.Parameter(torch.ones(3, dtype=torch.bfloat16)), nn.Parameter(torch.ones(3))
        >>> optimizer = ChunkedAdamW([{"params": [master]}], {master: half}, lr=0.5, weight_decay=0.0)
        >>> half.grad = torch.ones_like(half)
        >>> _ = optimizer.step()
        >>> half.tolist(), half.grad is None
        ([0.5, 0.5, 0.5], True)
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], models: Mapping[nn.Parameter, nn.Parameter], **settings: Any
    ) -> None:
        super().__init__(list(groups), fused=True, **settings)
        self.factor = 1.0
        self._models = dict(models)
        self._scratch = torch.empty(ELEMENTS)
        self._pieces = [_cut(group["params"], self._models) for group in self.param_groups]

    def clip(self, most: float) -> None:
        """Have the next step scale gradients so that their norm is at most this, as ``clip_grad_norm_`` does."""
        gradients = [half.grad for half in self._models.values() if half.grad is not None]
        norms = torch._foreach_norm(gradients, 2.0, torch.float32)
        self.factor = min(1.0, most / (float(torch.linalg.vector_norm(torch.stack(norms))) + 1e-6))

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update weights that have a gradient; the gradients are gone afterwards."""
        assert closure is None
        for group, pieces in zip(self.param_groups, self._pieces, strict=True):
            for master in group["params"]:
                if self._models[master].grad is not None:
                    self._find_state(master)["step"].add_(1)
            for piece in pieces:
                self._update(group, [part for part in piece if part.parameter.grad is not None])
        for half in self._models.values():
            half.grad = None
        self.factor = 1.0

    def _find_state(self, master: nn.Parameter) -> dict[str, Tensor]:
        """Moments and count of updates, as torch keeps them."""
        state: dict[str, Tensor] = self.state[master]
        if not state:
            state |= {
                "step": torch.zeros(()),
                "exp_avg": torch.zeros_like(master),
                "exp_avg_sq": torch.zeros_like(master),
            }
        return state

    def _update(self, group: Mapping[str, Any], piece: Sequence[_Part]) -> None:
        """Update one piece."""
        if not piece:
            return
        sizes = [part.end - part.start for part in piece]
        gradients = list(self._scratch[: sum(sizes)].split(sizes))
        torch._foreach_copy_(gradients, [_see(_grad(part.parameter), part) for part in piece])
        if self.factor != 1.0:
            self._scratch[: sum(sizes)].mul_(self.factor)
        states = [self.state[part.master] for part in piece]
        masters = [_see(part.master, part) for part in piece]
        beta_1, beta_2 = group["betas"]
        torch._fused_adamw_(
            masters,
            gradients,
            [_see(state["exp_avg"], part) for state, part in zip(states, piece, strict=True)],
            [_see(state["exp_avg_sq"], part) for state, part in zip(states, piece, strict=True)],
            [],
            [state["step"] for state in states],
            lr=float(group["lr"]),
            beta1=beta_1,
            beta2=beta_2,
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
        torch._foreach_copy_([_see(part.parameter, part) for part in piece], masters)


def _grad(parameter: nn.Parameter) -> Tensor:
    """A gradient that is there."""
    assert parameter.grad is not None
    return parameter.grad.contiguous()


def _see(tensor: Any, part: _Part) -> Tensor:
    """The part's elements of a tensor."""
    seen: Tensor = tensor.detach().view(-1)[part.start : part.end]
    return seen


def _cut(masters: Sequence[nn.Parameter], models: Mapping[nn.Parameter, nn.Parameter]) -> list[list[_Part]]:
    """Cut weights into pieces: large ones into several, small ones together."""
    pieces: list[list[_Part]] = [[]]
    room = ELEMENTS
    for master in masters:
        start = 0
        while start < master.numel():
            if not room:
                pieces.append([])
                room = ELEMENTS
            end = min(start + room, master.numel())
            pieces[-1].append(_Part(models[master], master, start, end))
            room -= end - start
            start = end
    return pieces
