"""The layers of BERT and of families built like it, laid open, so that a forward pass need not go through modules."""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AlbertForSequenceClassification,
    AlbertModel,
    BertForSequenceClassification,
    BertModel,
    CamembertForSequenceClassification,
    CamembertModel,
    DistilBertForSequenceClassification,
    DistilBertModel,
    ElectraForSequenceClassification,
    ElectraModel,
    RobertaForSequenceClassification,
    RobertaModel,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

__all__ = ["Block", "Stack", "find_stack"]


@dataclass(frozen=True)
class Block:
    """One layer: attention, then a feed-forward network, each added to its input and normalized afterwards.

    Attributes:
        query: Makes queries.
        key: Makes keys.
        value: Makes values.
        out: Mixes what the heads found.
        norm: Behind the attention.
        up: The feed-forward network's first half.
        activation: Between its halves.
        down: Its second half.
        last_norm: Behind it.
    """

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    out: nn.Linear
    norm: nn.LayerNorm
    up: nn.Linear
    activation: Callable[[Tensor], Tensor]
    down: nn.Linear
    last_norm: nn.LayerNorm


@dataclass(frozen=True)
class Stack:
    """A classifier in three pieces whose head reads the first token, or an encoder, which has no head to call.

    Attributes:
        embed: From token ids, type ids and positions, each int64 of shape (T,), to states of shape (T, D).
        blocks: The layers from the bottom up; ALBERT's shared one stands there several times.
        head: From the first token's states, shape (R, 1, D), to logits, shape (R, C).
        num_heads: Attention heads of a layer.
        padding_id: Where positions count tokens from behind a padding index: that index; None where they start at 0.
    """

    embed: Callable[[Tensor, Tensor, Tensor], Tensor]
    blocks: tuple[Block, ...]
    head: Callable[[Tensor], Tensor]
    num_heads: int
    padding_id: int | None


def find_stack(model: nn.Module) -> Stack | None:
    """Lay a classifier or an encoder open, where nothing of it is other than its family made it.

    What another library or a hook has changed (adapters, prompts, quantized weights, a wrapped forward) is not seen by
    whoever runs the pieces, so such a model is refused, as are families of another build.

    Args:
        model: Any model.

    Returns:
        Its pieces, which share its weights; None where it must be run as it is.

    Example:
        >>> from transformers import BertConfig
        >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 9}
        >>> model = BertForSequenceClassification(BertConfig(**sizes, num_hidden_layers=3)).eval()
        >>> len(find_stack(model).blocks), find_stack(nn.Linear(2, 2))
        (3, None)
    """
    read = READERS.get(type(model))
    held: Any = model
    if type(model) in ENCODERS:
        kind, name = ENCODERS[type(model)]
        read, held = READERS[kind], SimpleNamespace(config=model.config, classifier=None, **{name: model})
    if read is None or _is_wrapped(model):
        return None
    config: Any = model.config
    if getattr(config, "is_decoder", False) or getattr(config, "add_cross_attention", False):
        return None
    stack = read(held)
    leaves = [leaf for block in stack.blocks for leaf in vars(block).values()]
    return stack if all(_is_plain(leaf) for leaf in leaves) else None


def _is_plain(leaf: object) -> bool:
    """Whether a part is a linear layer or a norm, with a bias and nothing more, or an activation without weights."""
    if type(leaf) in (nn.Linear, nn.LayerNorm):
        return getattr(leaf, "bias", None) is not None
    return not isinstance(leaf, nn.Module) or not list(leaf.parameters())


def _is_wrapped(model: nn.Module) -> bool:
    """Whether something watches or replaces a module's forward pass; embeddings and heads are called, so theirs may."""
    called = ("embeddings", "classifier", "pooler", "pre_classifier")
    for name, module in model.named_modules():
        if any(part in called for part in name.split(".")):
            continue
        if "forward" in vars(module) or module._forward_hooks or module._forward_pre_hooks:
            return True
    return False


def _read_bert(model: Any, encoder: Any, head: Callable[[Tensor], Tensor], *, padding_id: int | None) -> Stack:
    """BERT, ELECTRA and RoBERTa have layers of one build."""
    blocks = tuple(
        Block(
            query=layer.attention.self.query,
            key=layer.attention.self.key,
            value=layer.attention.self.value,
            out=layer.attention.output.dense,
            norm=layer.attention.output.LayerNorm,
            up=layer.intermediate.dense,
            activation=layer.intermediate.intermediate_act_fn,
            down=layer.output.dense,
            last_norm=layer.output.LayerNorm,
        )
        for layer in encoder.encoder.layer
    )
    project = getattr(encoder, "embeddings_project", None)

    def embed(tokens_T: Tensor, types_T: Tensor, places_T: Tensor) -> Tensor:
        made: Tensor = encoder.embeddings(
            input_ids=tokens_T[None], token_type_ids=types_T[None], position_ids=places_T[None]
        )[0]
        return made if project is None else project(made)

    return Stack(embed, blocks, head, model.config.num_attention_heads, padding_id)


def _read_pooled_bert(model: Any) -> Stack:
    return _read_bert(
        model, model.bert, lambda first_R1D: model.classifier(model.bert.pooler(first_R1D)), padding_id=None
    )


def _read_electra(model: Any) -> Stack:
    return _read_bert(model, model.electra, model.classifier, padding_id=None)


def _read_roberta(model: Any) -> Stack:
    return _read_bert(model, model.roberta, model.classifier, padding_id=int(model.roberta.embeddings.padding_idx))


def _read_distilbert(model: Any) -> Stack:
    blocks = tuple(
        Block(
            query=layer.attention.q_lin,
            key=layer.attention.k_lin,
            value=layer.attention.v_lin,
            out=layer.attention.out_lin,
            norm=layer.sa_layer_norm,
            up=layer.ffn.lin1,
            activation=layer.ffn.activation,
            down=layer.ffn.lin2,
            last_norm=layer.output_layer_norm,
        )
        for layer in model.distilbert.transformer.layer
    )

    def embed(tokens_T: Tensor, _: Tensor, places_T: Tensor) -> Tensor:
        made: Tensor = model.distilbert.embeddings(tokens_T[None], None, places_T[None])[0]
        return made

    def head(first_R1D: Tensor) -> Tensor:
        logits: Tensor = model.classifier(torch.relu(model.pre_classifier(first_R1D[:, 0])))
        return logits

    return Stack(embed, blocks, head, model.config.n_heads, None)


def _read_albert(model: Any) -> Stack:
    encoder, config = model.albert.encoder, model.config
    blocks = []
    for index in range(config.num_hidden_layers):
        group = encoder.albert_layer_groups[int(index / (config.num_hidden_layers / config.num_hidden_groups))]
        blocks += [
            Block(
                query=layer.attention.query,
                key=layer.attention.key,
                value=layer.attention.value,
                out=layer.attention.dense,
                norm=layer.attention.LayerNorm,
                up=layer.ffn,
                activation=layer.activation,
                down=layer.ffn_output,
                last_norm=layer.full_layer_layer_norm,
            )
            for layer in group.albert_layers
        ]

    def embed(tokens_T: Tensor, types_T: Tensor, places_T: Tensor) -> Tensor:
        made = model.albert.embeddings(tokens_T[None], token_type_ids=types_T[None], position_ids=places_T[None])[0]
        states: Tensor = encoder.embedding_hidden_mapping_in(made)
        return states

    def head(first_R1D: Tensor) -> Tensor:
        pooled = model.albert.pooler_activation(model.albert.pooler(first_R1D[:, 0]))
        logits: Tensor = model.classifier(pooled)
        return logits

    return Stack(embed, tuple(blocks), head, config.num_attention_heads, None)


READERS: dict[type, Callable[[Any], Stack]] = {
    BertForSequenceClassification: _read_pooled_bert,
    RobertaForSequenceClassification: _read_roberta,
    XLMRobertaForSequenceClassification: _read_roberta,
    CamembertForSequenceClassification: _read_roberta,
    ElectraForSequenceClassification: _read_electra,
    DistilBertForSequenceClassification: _read_distilbert,
    AlbertForSequenceClassification: _read_albert,
}
"""Exact classes: a subclass may do otherwise. DeBERTa and MPNet add relative positions to their attention scores, and
ModernBERT turns positions into rotations, reads windows and normalizes first."""

ENCODERS: dict[type, tuple[type, str]] = {
    BertModel: (BertForSequenceClassification, "bert"),
    RobertaModel: (RobertaForSequenceClassification, "roberta"),
    XLMRobertaModel: (XLMRobertaForSequenceClassification, "roberta"),
    CamembertModel: (CamembertForSequenceClassification, "roberta"),
    ElectraModel: (ElectraForSequenceClassification, "electra"),
    DistilBertModel: (DistilBertForSequenceClassification, "distilbert"),
    AlbertModel: (AlbertForSequenceClassification, "albert"),
}
"""Encoders by themselves: the classifier that each is part of, and its name there."""
