"""The ways to make a training step cheaper that change nothing of what it computes, put together."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.engine.fast.attention import attend_in_parts
from nlp_transfer.engine.fast.dropout import cheap_dropout
from nlp_transfer.engine.fast.fused_layers import block_layers, is_block
from nlp_transfer.models.encoder_parts import find_parts
from nlp_transfer.models.trim import LAST_MEETINGS, read_first_token

__all__ = ["use_fast_path"]


@contextmanager
def use_fast_path(model: nn.Module, headed: PreTrainedModel | None) -> Iterator[None]:
    """Let a model train faster for a while; what it computes stays the same but for the masks that dropout draws.

    Args:
        model: What is trained.
        headed: The family's own sequence-classification class inside it, where its own head is what is trained; None
            where another reads the encoder.

    Example:
        >>> layer = nn.Linear(2, 2)
        >>> with use_fast_path(layer, None):
        ...     sorted(vars(layer)) == sorted(vars(nn.Linear(2, 2)))
        True
    """
    is_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    last: nn.Module | None = None
    with ExitStack() as stack:
        if headed is not None and headed.config.model_type in LAST_MEETINGS:
            last = headed.get_submodule(find_parts(headed).layers[-1])
            # A fused layer leaves the other tokens out by itself.
            if not (is_cpu and "forward" not in vars(last) and is_block(last)):
                stack.enter_context(read_first_token(headed))
        stack.enter_context(cheap_dropout(model))
        stack.enter_context(attend_in_parts(model))
        if is_cpu:
            stack.enter_context(block_layers(model, last))
        yield
