"""Linear layers inside a block whose backward pass is written out, low-rank updates included."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nlp_transfer.engine.fast.dropout import STEPS, draw_mask, find_threshold, keep_where
from nlp_transfer.engine.predict.packed import has_fused_linear
from nlp_transfer.models.bottleneck import AddedAfter

__all__ = ["Product", "Slot", "find_slot"]

ROWS_PER_PART = 1_024
"""Tokens whose gradients of a weight are summed in one product: more of them fall out of the cache; measured, see
RESULTS.md."""


class Slot(NamedTuple):
    """A linear layer before it runs.

    Attributes:
        tensors: Weight (N, K), bias (N,), with an update its two matrices, (R, K) and (N, R), and with an adapter its
            parameters.
        scale: Factor on the update; None without one.
        threshold: Of the dropout on what the update reads.
        adapter: What reads the layer's output and is added to it; None without one.
    """

    tensors: tuple[Tensor, ...]
    scale: float | None = None
    threshold: int = 0
    adapter: nn.Module | None = None

    @property
    def factor(self) -> float:
        """On the update, what dropout multiplies kept elements with included."""
        return (self.scale or 0.0) * STEPS / (STEPS - self.threshold)


def find_slot(module: nn.Module) -> Slot | None:
    """See a module as a linear layer.

    Args:
        module: ``nn.Linear``, with or without a bottleneck adapter after it, or peft's with one LoRA update that is not
            merged.

    Returns:
        None where it is anything else, or computes otherwise.

    Example:
        >>> find_slot(nn.Linear(2, 3)).scale is None, find_slot(nn.ReLU())
        (True, None)
    """
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    if type(module) is nn.Linear and module.bias is not None:
        if not hooks:
            return Slot((module.weight, module.bias))
        if len(hooks) == 1 and isinstance(hooks[0], AddedAfter):
            adapter = hooks[0].adapter
            return Slot((module.weight, module.bias, *adapter.parameters()), adapter=adapter)
    if hooks:
        return None
    lora: Any = module
    # Whoever has such a layer has imported peft; others are spared it.
    kind = getattr(sys.modules.get("peft.tuners.lora"), "Linear", None)
    if (
        kind is None
        or type(module) is not kind
        or lora.merged
        or lora.disable_adapters
        or len(lora.active_adapters) != 1
    ):
        return None
    name, base = lora.active_adapters[0], lora.base_layer
    if type(base) is not nn.Linear or base.bias is None or name not in lora.lora_A or name in lora.lora_variant:
        return None
    first, second, dropout = lora.lora_A[name], lora.lora_B[name], lora.lora_dropout[name]
    if first.bias is not None or second.bias is not None or type(dropout) not in (nn.Dropout, nn.Identity):
        return None
    rate = float(dropout.p) if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
    tensors = (base.weight, base.bias, first.weight, second.weight)
    return Slot(tensors, float(lora.scaling[name]), find_threshold(rate))


class Product:
    """Linear layers that read the same states, run as one, and the way back.

    Args:
        slots: The layers, each with N outputs.
        states: What they read, shape (T, K).

    Attributes:
        outputs: What each gave, shape (T, N).

    Example:
        >>> layer, states = nn.Linear(2, 3), torch.ones(4, 2)
        >>> bool(torch.allclose(Product([find_slot(layer)], states).outputs[0], layer(states)))
        True
    """

    def __init__(self, slots: Sequence[Slot], states: Tensor) -> None:
        self.slots, self.states = slots, states
        self._weight = _join([slot.tensors[0] for slot in slots])
        joint = _run(states, self._weight, _join([slot.tensors[1] for slot in slots]))
        self.outputs: tuple[Tensor, ...] = joint.chunk(len(slots), dim=1)
        self._masks = [
            draw_mask(states.shape, slot.threshold, states.dtype) if slot.threshold else None for slot in slots
        ]
        self._added: tuple[Tensor, Tensor] | None = None
        if slots[0].adapter is not None:
            self._run_adapter(slots[0].adapter)
        self._reduced: list[Tensor | None] = []
        for slot, out, mask in zip(slots, self.outputs, self._masks, strict=True):
            if slot.scale is None:
                self._reduced.append(None)
                continue
            reduced = _mask(states, mask) @ slot.tensors[2].t()
            out.addmm_(reduced, slot.tensors[3].t(), alpha=slot.factor)
            self._reduced.append(reduced)

    def _run_adapter(self, adapter: nn.Module) -> None:
        """Add what an adapter makes of the one layer's output; autograd goes through it alone."""
        (out,) = self.outputs
        with torch.enable_grad():
            read = out.detach().requires_grad_(True)
            self._added = read, adapter(read)
        self.outputs = (out + self._added[1].detach(),)

    def _adapter_back(self, joint: Tensor, needs: Sequence[bool]) -> tuple[Tensor, list[Tensor | None]]:
        """Go back through the adapter: the gradient by what it read, and by its parameters."""
        if self._added is None:
            return joint, []
        read, added = self._added
        parameters = self.slots[0].tensors[2:]
        wanted = [parameter for parameter, is_needed in zip(parameters, needs, strict=True) if is_needed]
        below, *found = torch.autograd.grad(added, [read, *wanted], joint)
        self._added = None
        left = iter(found)
        return joint + below, [next(left) if is_needed else None for is_needed in needs]

    def take(self) -> tuple[Tensor, ...]:
        """Give the outputs and keep them no longer."""
        outputs, self.outputs = self.outputs, ()
        return outputs

    def go_back(
        self, joint: Tensor, needs: Sequence[bool], onto: Tensor | None = None, *, wanted: bool = True
    ) -> tuple[Tensor | None, list[Tensor | None]]:
        """Go back.

        Args:
            joint: Gradients by the outputs, side by side, shape (T, slots * N).
            needs: Which tensors want a gradient, slot after slot.
            onto: What the gradient by the states is added to, in place, shape (T, K); None for a new one.
            wanted: Whether the gradient by the states is wanted.

        Returns:
            That gradient, and one for each tensor of each slot; None where not wanted.
        """
        joint, of_adapter = self._adapter_back(joint, needs[2:])
        below = None if not wanted else joint @ self._weight if onto is None else onto.addmm_(joint, self._weight)
        starts = [sum(len(slot.tensors) for slot in self.slots[:number]) for number in range(len(self.slots))]
        weights = biases = None
        if any(needs[start] for start in starts):
            weights = _sum_products(joint, self.states).chunk(len(self.slots))
        if any(needs[start + 1] for start in starts):
            biases = joint.sum(0).chunk(len(self.slots))
        found: list[Tensor | None] = []
        for number, (slot, start) in enumerate(zip(self.slots, starts, strict=True)):
            found.append(weights[number] if weights is not None and needs[start] else None)
            found.append(biases[number] if biases is not None and needs[start + 1] else None)
            if slot.scale is not None:
                own = joint.chunk(len(self.slots), dim=1)[number]
                found += self._update_back(number, own, needs[start + 2 : start + 4], below)
        return below, found + of_adapter

    def _update_back(
        self, number: int, gradient: Tensor, needs: Sequence[bool], below: Tensor | None
    ) -> list[Tensor | None]:
        """Go back through one update; what reaches the states is added to ``below``."""
        slot, mask, reduced = self.slots[number], self._masks[number], self._reduced[number]
        assert reduced is not None
        first, second = slot.tensors[2:]
        to_reduced = (gradient @ second).mul_(slot.factor)
        to_first = _sum_products(to_reduced, _mask(self.states, mask)) if needs[0] else None
        to_second = _sum_products(gradient, reduced).mul_(slot.factor) if needs[1] else None
        if below is not None:
            below.addmm_(to_reduced, first) if mask is None else below.add_(_mask(to_reduced @ first, mask))
        return [to_first, to_second]


def _run(states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Give what linear layers do of shape (T, K): (T, N)."""
    if states.dtype == torch.bfloat16 and has_fused_linear():
        # Adds the bias while the product is at hand; torch's own copies it to every row before.
        found: Tensor = torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "none")
        return found
    return torch.addmm(bias, states, weight.t())


def _join(tensors: Sequence[Tensor]) -> Tensor:
    """Put tensors one below the other."""
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))


def _mask(values: Tensor, mask: Tensor | None) -> Tensor:
    """Drop elements, where there is a mask."""
    return values if mask is None else keep_where(values, mask)


def _sum_products(gradient: Tensor, states: Tensor) -> Tensor:
    """Give the gradient of a weight, shape (N, K), from shapes (T, N) and (T, K)."""
    total = gradient[:ROWS_PER_PART].t() @ states[:ROWS_PER_PART]
    for start in range(ROWS_PER_PART, len(states), ROWS_PER_PART):
        rows = slice(start, start + ROWS_PER_PART)
        total.addmm_(gradient[rows].t(), states[rows])
    return total
