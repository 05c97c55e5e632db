"""Logits of every example of a split, without gradients and, where the model allows it, without padding."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from nlp_transfer.data.batches import plan_inference, plan_packed
from nlp_transfer.engine.predict.forward import Feeder, compute_logits, join_windows
from nlp_transfer.engine.predict.hidden_states import fetch_rows
from nlp_transfer.engine.predict.packed import PACKED_TOKENS, PackedModel, PackedRows
from nlp_transfer.errors import ShapeError
from nlp_transfer.models.blocks import find_stack

__all__ = ["compute_packed", "order_answers", "pack_model", "plan_passes", "predict_logits"]


def pack_rows(
    feeder: Feeder, examples: np.ndarray, *, max_tokens: int | None = None
) -> tuple[list[PackedRows], np.ndarray]:
    """Put the rows of examples behind each other, without padding.

    Args:
        feeder: The split.
        examples: Indices, int64, shape (B,).
        max_tokens: Most tokens in a pass, where that is fewer than a pass takes.

    Returns:
        Rows, longest first, in parts of a size that one pass takes; and the place of each row's example among the B,
        int64, shape (R,).
    """
    rows, owners = feeder.find_rows(examples)
    owners = np.arange(len(rows)) if owners is None else owners
    store = feeder.open_store()
    parts, order = [], []
    most = min(max_tokens or PACKED_TOKENS, PACKED_TOKENS)
    for own in plan_packed(feeder.encoded.lengths[rows], batch_size=len(rows), max_tokens=most):
        parts.append(fetch_rows(store, rows[own]))
        order.append(owners[own])
    return parts, np.concatenate(order)


def pack_model(model: nn.Module, feeder: Feeder, dtype: torch.dtype | None = None) -> PackedModel | None:
    """Make a model that reads rows without padding, where that gives the model's own answers.

    Args:
        model: On the feeder's device.
        feeder: The split.
        dtype: Format of its layers; the model's own where absent.

    Returns:
        It; None where the model must be run as it is.
    """
    if not feeder.can_pack() or torch.is_autocast_enabled("cpu"):
        return None
    stack = find_stack(model)
    return None if stack is None else PackedModel(stack, dtype or stack.blocks[0].query.weight.dtype)


def compute_packed(
    packed: PackedModel, feeder: Feeder, examples: np.ndarray, *, max_tokens: int | None = None
) -> Tensor:
    """Run a model without padding; windows of one text share the mean of their logits.

    Args:
        packed: From `pack_model`.
        feeder: The split.
        examples: Indices, int64, shape (B,).
        max_tokens: Most tokens in a pass: the many windows of a long text go through in parts.

    Returns:
        Float32 logits, shape (B, C).
    """
    parts, owners = pack_rows(feeder, examples, max_tokens=max_tokens)
    return join_windows(torch.cat([packed(part) for part in parts]), torch.from_numpy(owners), len(examples))


def plan_passes(feeder: Feeder, *, batch_size: int, max_tokens: int | None = None) -> list[np.ndarray]:
    """Plan passes without padding over a whole split.

    Args:
        feeder: The split.
        batch_size: Most examples in a pass.
        max_tokens: Most tokens in a pass, where that is fewer than a pass takes.

    Returns:
        Numbers of examples, int64, longest first; together every example once.
    """
    most = min(max_tokens or PACKED_TOKENS, PACKED_TOKENS)
    return plan_packed(feeder.lengths, batch_size=batch_size, max_tokens=most)


def predict_logits(
    model: nn.Module,
    feeder: Feeder,
    *,
    batch_size: int,
    max_tokens: int | None = None,
    num_processes: int = 1,
    rank: int = 0,
    gather: Callable[[list[tuple[np.ndarray, np.ndarray]]], list[tuple[np.ndarray, np.ndarray]]] | None = None,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Score every example of a split, in batches sorted by length, without padding where the model allows it.

    Args:
        model: The model; its mode is restored afterwards.
        feeder: The split.
        batch_size: Examples in one forward pass.
        max_tokens: Most tokens in one forward pass, padding included; no limit where absent.
        num_processes: Count of processes that share the work.
        rank: Number of this process.
        gather: Collects the parts of all processes; needed where there are several.
        progress: Called with the count of examples done since the last call.

    Returns:
        Float32, shape (N, C), in the order of the split.

    Raises:
        ShapeError: Not every example was scored exactly once.
    """
    was_training = model.training
    model.eval()
    device_parts: list[tuple[np.ndarray, Tensor]] = []
    packed = pack_model(model, feeder)
    if packed is not None:
        batches = plan_passes(feeder, batch_size=batch_size, max_tokens=max_tokens)
    else:
        batches = plan_inference(feeder.lengths, batch_size=batch_size, max_tokens=max_tokens)
    with torch.inference_mode():
        for examples in batches[rank::num_processes]:
            if packed is not None:
                logits_BC = compute_packed(packed, feeder, examples, max_tokens=max_tokens)
            else:
                logits_BC = compute_logits(model, feeder.feed(examples), max_tokens=max_tokens)
            device_parts.append((examples, logits_BC))
            if progress is not None:
                progress(len(examples))
    model.train(was_training)
    parts = [(examples, logits_BC.cpu().numpy()) for examples, logits_BC in device_parts]
    if num_processes > 1 and gather is not None:
        parts = gather(parts)
    return order_answers(parts, feeder.encoded.num_examples)


def order_answers(parts: Sequence[tuple[np.ndarray, np.ndarray]], total: int) -> np.ndarray:
    """Put answers in the order of their split.

    Args:
        parts: Numbers of examples, int64, shape (B,), and their answers, shape (B, C).
        total: Examples of the split, N.

    Returns:
        Float32, shape (N, C).

    Raises:
        ShapeError: Not every example was answered exactly once.

    Example:
        >>> order_answers([(np.array([1]), np.array([[5.0]])), (np.array([0]), np.array([[4.0]]))], 2).tolist()
        [[4.0], [5.0]]
    """
    seen = np.zeros(total, dtype=np.int64)
    result: np.ndarray | None = None
    for examples, values in parts:
        if result is None:
            result = np.empty((total, values.shape[1]), dtype=np.float32)
        result[examples] = values
        np.add.at(seen, examples, 1)
    if result is None or not (seen == 1).all():
        raise ShapeError(f"prediction: expected each of {total} examples once, got {int(seen.sum())} answers.")
    return result
