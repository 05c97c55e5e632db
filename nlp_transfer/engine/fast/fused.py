"""The layers of BERT and its like while training on a CPU, by fused forward and backward passes."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers.activations import GELUActivation

from nlp_transfer.engine.fast.attention import attend, attend_backward, hide
from nlp_transfer.engine.fast.dropout import FORMATS, STEPS, draw_mask, find_threshold, keep_where
from nlp_transfer.engine.predict.packed import has_fused_linear
from nlp_transfer.models.bottleneck import AddedAfter

__all__ = ["Product", "Slot", "block_layers", "find_slot", "is_block"]

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


LINEAR = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""Linear layers of a block, in the order they run."""

NORMS = ("attention.output.LayerNorm", "output.LayerNorm")
"""Normalizations behind each half of a block."""

OTHERS = ("encoder_hidden_states", "encoder_attention_mask", "past_key_values", "cache", "cu_seq_lens_q")
"""Arguments of a layer that make it read more than its input; what stands before them by position is among them."""

DROPOUTS = ("attention.self.dropout", "attention.output.dropout", "output.dropout")
"""Dropout on attention weights, and behind each half."""


class _Plan(NamedTuple):
    """What one call of a block is about, beside tensors.

    Attributes:
        slots: The linear layers, as ``LINEAR`` names them.
        num_heads: H.
        thresholds: Of dropout, as ``DROPOUTS`` names it.
        epsilons: Of the normalizations.
        first_only: Whether only the first token's state is read above.
    """

    slots: Sequence[Slot]
    num_heads: int
    thresholds: Sequence[int]
    epsilons: Sequence[float]
    first_only: bool


@contextmanager
def block_layers(model: nn.Module, first_only: nn.Module | None = None) -> Iterator[None]:
    """Let the layers of an encoder run by fused forward and backward passes while it trains on a CPU.

    Torch's modules keep, and pass over, a tensor for each small step, and where matrices are multiplied fast, softmax
    of short rows, dropout masks and copies of heads take longer than the products. Here a layer computes the same from
    the same weights, with its backward pass written out: queries, keys and values are one product, masks are bits, and
    gradients of what is frozen are left out.

    Layers of other families, and layers with other modules or hooks inside, are left as they are; so are all of them
    in evaluation mode, without gradients and on other devices.

    Args:
        model: Its layers have another ``forward`` meanwhile, where they have their class's own.
        first_only: The last layer, where nothing above it reads another token than the first: what it would compute of
            the others is left out.
    """
    layers = [module for module in model.modules() if "forward" not in vars(module) and is_block(module)]
    for layer in layers:
        layer.forward = partial(_forward, layer, layer is first_only)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def is_block(module: nn.Module) -> bool:
    """Whether a module is built as BERT's layer is, and nothing else is in it.

    Example:
        >>> is_block(nn.Linear(2, 2))
        False
    """
    try:
        for name in LINEAR:
            module.get_submodule(name)
        norms = [module.get_submodule(name) for name in NORMS]
        dropouts = [module.get_submodule(name) for name in DROPOUTS]
        activation = module.get_submodule("intermediate.intermediate_act_fn")
        attention = module.get_submodule("attention.self")
    except AttributeError:
        return False
    return (
        all(type(each) is nn.LayerNorm and each.bias is not None for each in norms)
        and all(type(each) is nn.Dropout for each in dropouts)
        and isinstance(activation, GELUActivation)
        and activation.act is functional.gelu
        and {name for name, _ in attention.named_children()} == {"query", "key", "value", "dropout"}
        and {name for name, _ in module.named_children()} == {"attention", "intermediate", "output"}
        and hasattr(attention, "num_attention_heads")
        and not getattr(module, "is_decoder", True)
        and not getattr(module, "chunk_size_feed_forward", 1)
        and all(_has_known_hooks(each) for each in module.modules())
    )


def _has_known_hooks(module: nn.Module) -> bool:
    """Whether a module has no hooks but what ``find_slot`` knows of."""
    return not (module._forward_hooks or module._forward_pre_hooks) or find_slot(module) is not None


def _forward(layer: nn.Module, first_only: bool, hidden: Tensor, mask: Any = None, *args: Any, **rest: Any) -> Any:
    """Take the place of the layer's own ``forward``, which runs wherever this one cannot."""
    is_plain = layer.training and torch.is_grad_enabled() and not any(each is not None for each in args)
    is_plain = is_plain and not any(rest.get(name) is not None for name in OTHERS)
    plan = _make_plan(layer, first_only, hidden, mask) if is_plain else None
    if plan is None:
        return type(layer).forward(layer, hidden, mask, *args, **rest)
    tensors = [tensor for slot in plan.slots for tensor in slot.tensors]
    tensors += [layer.get_parameter(f"{name}.{kind}") for name in NORMS for kind in ("weight", "bias")]
    # Padding hides a key from all queries alike.
    bias = None if mask is None else hide(mask[:, :, :1], hidden.dtype)
    return _Block.apply(plan, bias, hidden, *tensors)


def _make_plan(layer: nn.Module, first_only: bool, hidden: Tensor, mask: Any) -> _Plan | None:
    """Lay out a call; None where it must be left to torch."""
    slots = [slot for name in LINEAR if (slot := find_slot(layer.get_submodule(name))) is not None]
    dropouts = [layer.get_submodule(name) for name in DROPOUTS]
    rates = [float(each.p) if each.training else 0.0 for each in dropouts if isinstance(each, nn.Dropout)]
    norms = [layer.get_submodule(name) for name in NORMS]
    num_heads: Any = layer.get_submodule("attention.self").num_attention_heads
    if (
        hidden.device.type != "cpu"
        or hidden.dtype not in FORMATS
        or len(slots) < len(LINEAR)
        or any(tensor.dtype != hidden.dtype for slot in slots for tensor in slot.tensors)
        or not (mask is None or (isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.ndim == 4))
        or max(rates) >= 1.0
    ):
        return None
    return _Plan(
        slots=slots,
        num_heads=num_heads,
        thresholds=[find_threshold(rate) for rate in rates],
        epsilons=[float(norm.eps) for norm in norms if isinstance(norm, nn.LayerNorm)],
        first_only=first_only,
    )


class _Block(torch.autograd.Function):
    """One layer. Shapes: (B, L, D), or (T, D) with T = B * L; (B, 1, D) where only the first token is wanted."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, bias: Tensor | None, hidden: Tensor, *tensors: Tensor) -> Tensor:
        """Run the layer and keep what the way back reads."""
        num_texts, _, width = hidden.shape
        states = hidden.reshape(-1, width)
        read = hidden[:, 0].contiguous() if plan.first_only else states
        products = [Product(plan.slots[:1], read), Product(plan.slots[1:3], states)]
        if not plan.first_only:
            products = [Product(plan.slots[:3], states)]
        query, key, value = (_split_heads(out, num_texts, plan.num_heads) for each in products for out in each.take())
        context, attended = attend(query, key, value, bias, plan.thresholds[0], _find_scale(plan, width))
        products.append(Product(plan.slots[3:4], _join_heads(context)))
        middle, first = _Norm.start(products[-1].take()[0], read, plan, 0, tensors[-4:-2])
        products.append(Product(plan.slots[4:5], middle))
        products.append(Product(plan.slots[5:], functional.gelu(products[-1].outputs[0])))
        last, second = _Norm.start(products[-1].take()[0], middle, plan, 1, tensors[-2:])
        ctx.plan, ctx.shape, ctx.kept = plan, hidden.shape, (attended, products, first, second)
        return last.view(num_texts, -1, width)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        """Go back."""
        plan, (attended, products, first, second) = ctx.plan, ctx.kept
        ctx.kept = None
        needs, wanted = list(ctx.needs_input_grad[3:]), bool(ctx.needs_input_grad[2])
        counts = [len(slot.tensors) for slot in plan.slots]
        edges = [sum(counts[:number]) for number in range(len(counts) + 1)]
        *projected, out, inner, last = products
        through, masked, norm_second = second.go_back(gradient.reshape(-1, gradient.shape[-1]), needs[-2:])
        to_active, found_last = last.go_back(masked, needs[edges[5] : edges[6]])
        to_inner = torch.ops.aten.gelu_backward(to_active, inner.outputs[0])
        through, found_inner = inner.go_back(to_inner, needs[edges[4] : edges[5]], through)
        through, masked, norm_first = first.go_back(through, needs[-4:-2])
        to_mixed, found_out = out.go_back(masked, needs[edges[3] : edges[4]])
        below: Tensor | None = None
        found: list[Tensor | None] = [None] * edges[3]
        if wanted or any(needs[: edges[3]]):
            sizes = (ctx.shape[0], plan.num_heads)
            sums = _split_heads(to_mixed * out.states, *sizes).sum(dim=-1, keepdim=True, dtype=attended.sums.dtype)
            scale = _find_scale(plan, ctx.shape[-1])
            heads = attend_backward(attended, _split_heads(to_mixed, *sizes), sums, plan.thresholds[0], scale)
            below, found = _project_back(plan, projected, heads, needs[: edges[3]], through, ctx.shape, wanted)
        return (None, None, below, *found, *found_out, *found_inner, *found_last, *norm_first, *norm_second)


def _project_back(
    plan: _Plan,
    projected: Sequence[Product],
    heads: Sequence[Tensor],
    needs: Sequence[bool],
    through: Tensor,
    shape: torch.Size,
    wanted: bool,
) -> tuple[Tensor | None, list[Tensor | None]]:
    """Go back through queries, keys and values; ``through`` is what reached the layer's input around them."""
    if not plan.first_only:
        below, found = projected[0].go_back(_join_heads(*heads), needs, through, wanted=wanted)
        return below if below is None else below.view(shape), found
    count = len(plan.slots[0].tensors)
    to_read, found_query = projected[0].go_back(_join_heads(heads[0]), needs[:count], through, wanted=wanted)
    below, found = projected[1].go_back(_join_heads(*heads[1:]), needs[count:], wanted=wanted)
    if below is not None:
        assert to_read is not None
        below = below.view(shape)
        below[:, 0].add_(to_read)
    return below, found_query + found


class _Norm(NamedTuple):
    """Dropout, what goes around a half of a block, and normalization, as the way back needs them.

    Attributes:
        summed: What was normalized, shape (T, D).
        mean: Of each row, shape (T, 1).
        deviation: One over that of each row, shape (T, 1).
        weight: Of the normalization.
        bias: Of the normalization.
        mask: Dropout's; None without.
        factor: What dropout multiplies kept elements with.
    """

    summed: Tensor
    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor
    mask: Tensor | None
    factor: float

    @classmethod
    def start(
        cls, out: Tensor, around: Tensor, plan: _Plan, number: int, tensors: Sequence[Tensor]
    ) -> tuple[Tensor, "_Norm"]:
        """Run the end of a half."""
        threshold = plan.thresholds[number + 1]
        mask, factor = None, STEPS / (STEPS - threshold)
        if threshold:
            mask = draw_mask(out.shape, threshold, out.dtype)
            out = keep_where(out, mask)
        summed = torch.add(around, out, alpha=factor)
        weight, bias = tensors
        normed, mean, deviation = torch.native_layer_norm(
            summed, summed.shape[-1:], weight, bias, plan.epsilons[number]
        )
        return normed, cls(summed, mean, deviation, weight, bias, mask, factor)

    def go_back(self, gradient: Tensor, needs: Sequence[bool]) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        """Give gradients by what went around, by what was dropped from, and by weight and bias."""
        through, to_weight, to_bias = torch.ops.aten.native_layer_norm_backward(
            gradient.contiguous(),
            self.summed,
            self.summed.shape[-1:],
            self.mean,
            self.deviation,
            self.weight,
            self.bias,
            [True, bool(needs[0]), bool(needs[1])],
        )
        dropped = through if self.mask is None else keep_where(through, self.mask).mul_(self.factor)
        return through, dropped, [to_weight if needs[0] else None, to_bias if needs[1] else None]


def _find_scale(plan: _Plan, width: int) -> float:
    """The factor on attention scores."""
    return float((width // plan.num_heads) ** -0.5)


def _split_heads(states: Tensor, num_texts: int, num_heads: int) -> Tensor:
    """From shape (T, D) to (B, H, L, D / H)."""
    return states.view(num_texts, -1, num_heads, states.shape[-1] // num_heads).transpose(1, 2).contiguous()


def _join_heads(*heads_BHLD: Tensor) -> Tensor:
    """From shapes (B, H, L, D / H) to (T, D), side by side."""
    num_texts, num_heads, length, size = heads_BHLD[0].shape
    joint = heads_BHLD[0].new_empty(num_texts, length, len(heads_BHLD), num_heads, size)
    for number, heads in enumerate(heads_BHLD):
        joint[:, :, number].copy_(heads.transpose(1, 2))
    return joint.view(num_texts * length, -1)
