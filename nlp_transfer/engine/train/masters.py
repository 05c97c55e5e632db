"""Compute in bf16, update in float32: for any optimizer, and AdamW a matrix at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

__all__ = ["HalfAdamW", "Masters"]


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


PIECE = 600_000
"""Weights that are worked on at once: float32 gradients of more of them would fall out of the cache; measured, see
RESULTS.md."""

NORM_GUARD = 1e-6
"""Added to the norm that gradients are clipped by, as torch does."""


class HalfAdamW(torch.optim.AdamW):
    """Clip, update and hand the weights down in one pass over memory.

    One step after the other, that is gradients in float32, their norm, clipping, the update, and weights rounded for
    the model, passes 50 bytes a weight through memory; here a matrix goes through all of them while it is in the cache.
    What is computed is torch's fused AdamW on clipped float32 gradients, but that norms of whole matrices are rounded
    to bf16 before they are put together: the factor of the clipping is off by less than 0.4 %, the rounding error of
    any one gradient.

    Args:
        groups: As torch optimizers take them, of float32 weights.
        lower: What each of them is the float32 copy of: parameters in bf16, whose gradients are taken and cleared.
            Weights that have a gradient of their own, the sum over parts of a window, are updated with that.
        betas: Of the moments.
        eps: Beside the root of the second moment.
        max_norm: What all gradients together are clipped to; None for no clipping.

    Source:
        Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101.

    Example:
        >>> low = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
        >>> weight = nn.Parameter(low.detach().float())
        >>> optimizer = HalfAdamW([{"params": [weight], "lr": 0.5, "weight_decay": 0.0}], {weight: low})
        >>> low.sum().backward()
        >>> optimizer.step()
        >>> low.tolist(), weight.dtype, low.grad
        ([0.5, 0.5], torch.float32, None)
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lower: Mapping[nn.Parameter, nn.Parameter],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        max_norm: float | None = None,
    ) -> None:
        super().__init__(groups, betas=betas, eps=eps, fused=True)
        self._lower, self.max_norm = dict(lower), max_norm
        self._scratch = torch.empty(0)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Update with the gradients that there are, and clear them."""
        assert closure is None, "the loss is not computed again"
        taken = [
            (group, [(weight, found) for weight in group["params"] if (found := self._find(weight)) is not None])
            for group in self.param_groups
        ]
        divisor = self._find_divisor([gradient for _, pairs in taken for _, gradient in pairs])
        for group, pairs in taken:
            self._count(weight for weight, _ in pairs)
            held: list[_Piece] = []
            count = 0
            for weight, gradient in pairs:
                for piece in self._cut(weight, gradient):
                    if count + piece.size > PIECE:
                        self._update(group, held, divisor)
                        held, count = [], 0
                    held.append(piece)
                    count += piece.size
                weight.grad = self._lower[weight].grad = None
            self._update(group, held, divisor)

    def _find(self, weight: nn.Parameter) -> Tensor | None:
        """The gradient of a weight."""
        return self._lower[weight].grad if weight.grad is None else weight.grad

    def _find_divisor(self, gradients: list[Tensor]) -> Tensor | None:
        """What gradients are divided by to be clipped; None where they are not."""
        if self.max_norm is None or not gradients:
            return None
        norm = vector_norm(torch.stack([each.float() for each in torch._foreach_norm(gradients)]))
        divisor: Tensor = ((norm + NORM_GUARD) / self.max_norm).clamp_(min=1.0)
        return divisor

    def _count(self, weights: Iterable[nn.Parameter]) -> None:
        """Count a step of some weights, where it is their first with moments of zero."""
        counters = []
        for weight in weights:
            state = self.state[weight]
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(weight), torch.zeros_like(weight)
            counters.append(state["step"])
        if counters:
            torch._foreach_add_(counters, 1)

    def _cut(self, weight: nn.Parameter, gradient: Tensor) -> Iterator["_Piece"]:
        """Cut what belongs to a weight into pieces of a limited size."""
        state = self.state[weight]
        tensors = (weight, gradient, state["exp_avg"], state["exp_avg_sq"], self._lower[weight])
        flat = [each.reshape(-1) for each in tensors]
        size = weight.numel()
        if size <= PIECE:
            yield _Piece._make((*flat, state["step"], size))
            return
        for start in range(0, size, PIECE):
            part = slice(start, min(start + PIECE, size))
            yield _Piece._make((*(each[part] for each in flat), state["step"], part.stop - start))

    def _update(self, group: dict[str, Any], pieces: Sequence["_Piece"], divisor: Tensor | None) -> None:
        """Update some pieces and hand them down."""
        if not pieces:
            return
        weights, given, first, second, lower, steps, sizes = zip(*pieces, strict=True)
        count = sum(sizes)
        if self._scratch.numel() < count:
            self._scratch = torch.empty(count)
        gradients = self._scratch[:count].split(sizes)
        for own, each in zip(gradients, given, strict=True):
            own.copy_(each)
        torch._fused_adamw_(
            weights,
            gradients,
            first,
            second,
            [],
            steps,
            lr=float(group["lr"]),
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
            grad_scale=divisor,
        )
        for below, weight in zip(lower, weights, strict=True):
            below.copy_(weight)


class _Piece(NamedTuple):
    """A weight, or a part of one, and what belongs to it: flat, all of one size but for the count of steps."""

    weight: Tensor
    gradient: Tensor
    first: Tensor
    second: Tensor
    lower: Tensor
    steps: Tensor
    size: int
