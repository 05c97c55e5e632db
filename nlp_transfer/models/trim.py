"""The last layer of an encoder, run on for the one token that the head reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.models.layers import find_parts

__all__ = ["LAST_MEETINGS", "read_first_token"]

LAST_MEETINGS: dict[str, str] = {
    "bert": "attention",
    "camembert": "attention",
    "deberta-v2": "attention",
    "distilbert": "sa_layer_norm",
    "electra": "attention",
    "mpnet": "attention",
    "roberta": "attention",
    "xlm-roberta": "attention",
}
"""Part of a layer behind which no token reads another, in families whose head reads the first token. ALBERT runs one
layer many times, and ModernBERT adds the attention to the stream outside of any module."""


@contextmanager
def read_first_token(model: PreTrainedModel) -> Iterator[None]:
    """While training, leave out what the last layer would compute of tokens that nothing reads.

    Behind the last attention every token goes its own way, and the heads of these families read the first one: the
    feed-forward network, two thirds of a layer's work, need not run for the others. Logits and gradients are the same;
    dropout draws fewer masks. Without gradients, or in evaluation mode, everything is computed as ever.

    Args:
        model: The family's own sequence-classification class; of another family it is left as it is.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
        >>> model = BertForSequenceClassification(BertConfig(**sizes, num_hidden_layers=1)).train()
        >>> with read_first_token(model):
        ...     model(torch.tensor([[1, 2, 3]])).logits.shape
        torch.Size([1, 2])
    """
    place = LAST_MEETINGS.get(model.config.model_type)
    if place is None:
        yield
        return
    last = model.get_submodule(find_parts(model).layers[-1])
    handle = last.get_submodule(place).register_forward_hook(_keep_first)
    try:
        yield
    finally:
        handle.remove()


def _keep_first(module: nn.Module, _: Any, output: Any) -> Any:
    """Hand on the first token alone."""
    if not module.training or not torch.is_grad_enabled():
        return output
    return (output[0][:, :1], *output[1:]) if isinstance(output, tuple) else output[:, :1]
