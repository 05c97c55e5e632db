"""Rows of different length through the layers of an encoder as one row of real tokens."""

import inspect
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from nlp_transfer.models.trim import LAST_MEETINGS

__all__ = [
    "HALVES",
    "KERNEL",
    "PACKED",
    "Layout",
    "Packing",
    "attend_rows",
    "find_packing",
    "make_layout",
    "watch_calls",
]

PACKED = "nlp_transfer_packed"
"""What the function is called among those of transformers."""

HALVES = (torch.bfloat16, torch.float16)
"""Number formats that the kernel takes."""

_rates: list[float] | None = None
"""Where the dropout rates of packed calls are written down; None where nobody watches."""


@contextmanager
def watch_calls() -> Iterator[list[float]]:
    """Write down the attention dropout rate of every call on packed rows, one number a call.

    Which families ask transformers for their attention is found out so, and not from a list that grows stale.
    """
    global _rates
    before, _rates = _rates, []
    try:
        yield _rates
    finally:
        _rates = before


def _find_kernel() -> Callable[..., Any] | None:
    """Find torch's kernel; None where this torch has none that takes a scale and a window."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn if {"scale", "window_size"} <= set(inspect.signature(varlen_attn).parameters) else None


KERNEL = _find_kernel()
"""Torch's attention without padding, forth and back, for GPUs; None where it has none."""


def attend_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: Tensor,
    longest: int,
    *,
    scale: float | None = None,
    window: int | None = None,
) -> Tensor:
    """Attend inside each of several rows that lie one behind the other.

    On a GPU, in bf16 or fp16, torch's kernel does all rows at once. Elsewhere each row is a call of its own: slow, and
    what the kernel is held against.

    Args:
        query: Shape (T, H, D).
        key: Shape (T, H, D).
        value: Shape (T, H, D).
        starts: Where each row begins, and where the last one ends, int32, shape (R + 1,).
        longest: At least as many tokens as the longest row has.
        scale: Factor on the products of queries and keys; one over the root of D where absent.
        window: Tokens further away than this are not looked at; all are where absent.

    Returns:
        Shape (T, H, D).

    Example:
        >>> states = torch.randn(5, 1, 4)
        >>> out = attend_rows(states, states, states, torch.tensor([0, 3, 5], dtype=torch.int32), 3)
        >>> alone = attend_rows(states[3:], states[3:], states[3:], torch.tensor([0, 2], dtype=torch.int32), 2)
        >>> torch.allclose(out[3:], alone)
        True
    """
    if KERNEL is not None and query.is_cuda and query.dtype in HALVES:
        size = (-1, -1) if window is None else (window, window)
        out: Tensor = KERNEL(query, key, value, starts, starts, longest, longest, scale=scale, window_size=size)
        return out
    alone: Tensor = _attend_each(query, key, value, starts, scale, window)
    return alone


# It reads how long the rows are, which the compiler cannot do.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _attend_each(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, scale: float | None, window: int | None
) -> Tensor:
    """The same, row by row."""
    heads_first = [each.transpose(0, 1)[None] for each in (query, key, value)]
    parts = []
    for start, end in itertools.pairwise(starts.tolist()):
        if start == end:
            continue
        own_query, own_key, own_value = (each[:, :, start:end] for each in heads_first)
        places = torch.arange(end - start, device=query.device)
        near = None if window is None else (places[:, None] - places).abs() <= window
        out = scaled_dot_product_attention(own_query, own_key, own_value, attn_mask=near, scale=scale)
        parts.append(out[0].transpose(0, 1))
    return torch.cat(parts)


def _forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """What transformers calls: packed rows where a layer was told of them, torch's own way otherwise.

    Dropout of attention weights is left out for packed rows, as the kernel has none.
    """
    starts = rest.get("cu_seq_lens_q")
    if starts is None:
        out, _ = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **rest
        )
        return out, None
    if _rates is not None:
        _rates.append(dropout)
    # What flash attention is told counts the token itself; see the attention of ModernBERT.
    window = None if sliding_window is None else sliding_window - 1
    tokens_first = [each[0].transpose(0, 1) for each in (query, key, value)]
    own_query, own_key, own_value = tokens_first
    longest: int = rest["max_length_q"]
    return attend_rows(own_query, own_key, own_value, starts, longest, scale=scaling, window=window)[None], None


def _make_mask(**given: Any) -> Tensor | None:
    """What transformers asks for a mask: none for packed rows, whose shape is not that of the padded mask.

    Where rows are padded, transformers looks whether they all are full, and does without a mask then. On a GPU that
    look makes the host wait for it once a pass, and batches of full rows are rare: there is always a mask.
    """
    padded, length = given.get("attention_mask"), given.get("q_length")
    # Its early fifth releases gave positions in place of a length.
    length = len(given["cache_position"]) if length is None else length
    if padded is not None and tuple(padded.shape) != (given["batch_size"], length):
        return None
    if padded is not None and padded.is_cuda:
        given["allow_is_bidirectional_skip"] = False
    mask: Tensor | None = sdpa_mask(**given)
    return mask


AttentionInterface.register(PACKED, _forward)
AttentionMaskInterface.register(PACKED, _make_mask)


LEAST_MULTIPLE, MULTIPLE = 8, 64
"""What counts of tokens are rounded up to a multiple of, the first for few tokens and the second for many: few
different shapes for the allocator, the matrix kernels and the compiler, and sides that tensor cores like; chosen."""


@dataclass(frozen=True)
class Layout:
    """Where the real tokens of a padded batch are, R rows of L places.

    Attributes:
        places: Place of each token among all R * L, int64, shape (T,), on the device. The count is rounded up: what
            is too much repeats place 0, and is a row of its own that nothing reads.
        starts: Where each row begins among the T, where the surplus does, and T: int32, shape (R + 2,), on the device.
        longest: Tokens of the longest row, rounded up.
        num_real: Real tokens.
        num_rows: R.
        width: L.
    """

    places: Tensor
    starts: Tensor
    longest: int
    num_real: int
    num_rows: int
    width: int

    def map(self, change: Callable[[Tensor], Tensor]) -> "Layout":
        """The same with both tensors changed."""
        return replace(self, places=change(self.places), starts=change(self.starts))

    def pack(self, states_RLD: Tensor) -> Tensor:
        """Take the real tokens, as one row: shape (1, T, D)."""
        return states_RLD.flatten(0, 1).index_select(0, self.places)[None]

    def unpack(self, states_1TD: Tensor) -> Tensor:
        """Put them back among zeros: shape (R, L, D)."""
        states_TD = states_1TD[0]
        flat = states_TD.new_zeros(self.num_rows * self.width, states_TD.shape[1])
        flat = flat.index_copy(0, self.places[: self.num_real], states_TD[: self.num_real])
        return flat.view(self.num_rows, self.width, -1)


def make_layout(counts: np.ndarray, width: int) -> Layout:
    """Lay out rows that are padded on the right.

    Args:
        counts: Tokens a row, at least 1, shape (R,).
        width: Places a row, L.

    Returns:
        The layout, on the CPU.

    Example:
        >>> layout = make_layout(np.array([2, 1]), 3)
        >>> layout.places[:3].tolist(), layout.starts.tolist(), layout.num_real
        ([0, 1, 3], [0, 2, 3, 8], 3)
    """
    real = np.flatnonzero(np.arange(width) < counts[:, None])
    # A thirty-second part of the next power of two, between the limits: few shapes, and little surplus of many tokens.
    multiple = min(MULTIPLE, max(LEAST_MULTIPLE, 1 << len(real).bit_length() >> 5))
    total = -(-len(real) // multiple) * multiple
    places = np.zeros(total, dtype=np.int64)
    places[: len(real)] = real
    starts = np.concatenate([[0], np.cumsum(counts), [total]]).astype(np.int32)
    longest = max(int(counts.max()), total - len(real))
    return Layout(
        places=torch.from_numpy(places),
        starts=torch.from_numpy(starts),
        longest=-(-longest // MULTIPLE) * MULTIPLE,
        num_real=len(real),
        num_rows=len(counts),
        width=width,
    )


class Packing:
    """A way through an encoder for packed rows; names, weights and outputs stay those of the model.

    Embeddings run on padded rows, as each family places its positions in its own way, and their output is packed.
    Behind the last layer the states are put back among zeros, so that poolers and heads find what they know. A pass
    that is not told of a layout goes the usual way.

    Args:
        encoder: The family's base model, with embeddings and a list of layers.
        trims: Whether, while training, the last layer runs on for the first token of a row alone, as
            ``read_first_token`` does for padded rows.
    """

    def __init__(self, encoder: PreTrainedModel, *, trims: bool) -> None:
        self.encoder = encoder
        self._place = LAST_MEETINGS.get(encoder.config.model_type) if trims else None
        self._next: Layout | None = None
        # Stays behind the pass: layers that are run again on the way back read it.
        self._layout: Layout | None = None
        self._is_trimmed = False

    @staticmethod
    def find_layers(encoder: nn.Module) -> Sequence[nn.Module]:
        """The layers, or ALBERT's shared ones; empty where there is no list of them."""
        return next((list(module) for module in encoder.modules() if isinstance(module, nn.ModuleList)), [])

    @staticmethod
    def find_end(encoder: nn.Module) -> nn.Module | None:
        """The module whose output is the encoder's: what holds all layers, or ModernBERT's last norm."""
        return next((part for name, part in encoder.named_children() if name in ENDS), None)

    @contextmanager
    def installed(self, model: nn.Module) -> Iterator["Packing"]:
        """Put the way in, and take it out again.

        Args:
            model: What the encoder is part of; ``find_packing`` of it gives this.
        """
        end, layers, config = self.find_end(self.encoder), self.find_layers(self.encoder), self.encoder.config
        assert end is not None, "the encoder was looked at before"
        implementation = config._attn_implementation
        with ExitStack() as stack:
            # To be removed in the end, whatever happens.
            for handle in (
                self.encoder.get_submodule("embeddings").register_forward_hook(self._pack),
                *(layer.register_forward_pre_hook(self._tell, with_kwargs=True) for layer in layers),
                end.register_forward_hook(self._unpack),
            ):
                stack.callback(handle.remove)
            for part in (part for name, part in self.encoder.named_children() if name == "rotary_emb"):
                stack.callback(part.register_forward_hook(self._turn).remove)
            if self._place is not None:
                meeting = layers[-1].get_submodule(self._place)
                # Its way depends on the batch; it is no part of a compiled layer.
                keep: Any = torch.compiler.disable(self._keep_first)
                stack.callback(meeting.register_forward_hook(keep).remove)
            config._attn_implementation = PACKED
            _KNOWN[model] = self
            try:
                yield self
            finally:
                config._attn_implementation = implementation
                _KNOWN.pop(model, None)
                self._layout = self._next = None

    @contextmanager
    def reading(self, layout: Layout) -> Iterator[None]:
        """Let the next pass pack its rows."""
        self._next = layout
        try:
            yield
        finally:
            self._next = None

    def _pack(self, _: nn.Module, __: Any, output: Tensor) -> Tensor:
        """Behind the embeddings."""
        layout, self._is_trimmed = self._next, False
        fits = layout is not None and tuple(output.shape[:2]) == (layout.num_rows, layout.width)
        self._layout = layout if fits else None
        return output if self._layout is None else self._layout.pack(output)

    def _tell(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        """In front of a layer: what its attention must know."""
        if self._layout is None:
            return None
        starts, longest = self._layout.starts, self._layout.longest
        told = {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts, "max_length_q": longest, "max_length_k": longest}
        return args, {**kwargs, **told}

    def _turn(self, _: nn.Module, __: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Behind rotary positions, shape (1, L, D): each token's own."""
        layout = self._layout
        if layout is None:
            return output
        columns = layout.places % layout.width
        return tuple(each.index_select(1, columns) for each in output)

    def _keep_first(self, module: nn.Module, _: Any, output: Any) -> Any:
        """Behind the last attention: the first token of each row."""
        if self._layout is None or not module.training or not torch.is_grad_enabled():
            return output
        self._is_trimmed = True
        states = output[0] if isinstance(output, tuple) else output
        first = states.index_select(1, self._layout.starts[:-2])
        return (first, *output[1:]) if isinstance(output, tuple) else first

    def _unpack(self, _: nn.Module, __: Any, output: Any) -> Any:
        """Behind the last layer."""
        layout = self._layout
        if layout is None:
            return output
        states = output if isinstance(output, Tensor) else output[0]
        whole = states[0][:, None] if self._is_trimmed else layout.unpack(states)
        if isinstance(output, Tensor):
            return whole
        if isinstance(output, tuple):
            return (whole, *output[1:])
        output["last_hidden_state"] = whole
        return output


ENDS = ("encoder", "transformer", "final_norm")
"""Names of the module whose output is the encoder's."""

_KNOWN: "WeakKeyDictionary[nn.Module, Packing]" = WeakKeyDictionary()


def find_packing(model: nn.Module) -> Packing | None:
    """Find the way for packed rows that is in a model now, if there is one."""
    return _KNOWN.get(model)
