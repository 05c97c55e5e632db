"""Masked-language heads: that of a checkpoint, or a new one, over an encoder that is trained elsewhere."""

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel, set_seed
from transformers.modeling_outputs import BaseModelOutput

from nlp_transfer.errors import EncoderError
from nlp_transfer.models.encoder import LOADING_ERRORS, find_base, quiet_loading
from nlp_transfer.models.output_layer import find_classifier
from nlp_transfer.models.resolve import EncoderSource

__all__ = ["MaskedHead", "load_masked_head", "load_masked_model"]


def load_masked_model(source: EncoderSource) -> nn.Module | None:
    """Load an encoder with the masked-language head that its checkpoint carries.

    Args:
        source: A resolved encoder.

    Returns:
        The model, in evaluation mode; None where the checkpoint has no such head, or its family knows none.
    """
    if source.is_artifact:
        return None
    try:
        model, missing = _load(source)
    except LOADING_ERRORS:
        # Whether the encoder itself can be loaded was said before; here there is only no head to ask.
        return None
    # A head that is not in the checkpoint was drawn at random, and says nothing.
    return None if missing else model.eval()


def _load(source: EncoderSource, *, trust_remote_code: bool = False) -> tuple[PreTrainedModel, set[str]]:
    """Load the family's masked-language class; gives the names of the weights that were not in the checkpoint too."""
    with quiet_loading():
        model, info = AutoModelForMaskedLM.from_pretrained(
            source.location,
            revision=source.revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    return model, set(info["missing_keys"])


class _Given(nn.Module):
    """Stands in an encoder's place and gives hidden states that were computed elsewhere.

    Args:
        embedding: Word embeddings, which the head of DeBERTa-v3 reads from the encoder.
    """

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.states: Tensor | None = None
        # Not a module of this one: the embeddings belong to the encoder that is trained.
        self.embeddings = SimpleNamespace(word_embeddings=embedding)

    def forward(self, *_: Any, **__: Any) -> BaseModelOutput:
        """Give the states."""
        return BaseModelOutput(last_hidden_state=self.states)


class MaskedHead(nn.Module):
    """The masked-language head of a family, without its encoder: from hidden states to the logits of every token.

    Args:
        model: The family's own masked-language class; its encoder is dropped.
        embedding: Word embeddings of the encoder that is trained; where the family ties the last layer to its
            embeddings, it is tied to these.
        is_new: Whether the checkpoint had no such head.
    """

    def __init__(self, model: PreTrainedModel, embedding: nn.Embedding, *, is_new: bool) -> None:
        super().__init__()
        self.is_new = is_new
        setattr(model, model.base_model_prefix, _Given(embedding))
        self.model = model
        output = model.get_output_embeddings()
        if output is not None and output.weight.shape == embedding.weight.shape and _is_tied(model):
            output.weight = embedding.weight

    def forward(self, states: Tensor) -> Tensor:
        """Score every token of the vocabulary.

        Args:
            states: Last hidden states, float, shape (M, D).

        Returns:
            Logits, float32, shape (M, V).
        """
        given = getattr(self.model, self.model.base_model_prefix)
        given.states = states[None]
        try:
            tokens = torch.zeros((1, len(states)), dtype=torch.long, device=states.device)
            logits_1MV: Tensor = self.model(tokens).logits
        finally:
            given.states = None
        return logits_1MV[0].float()


def _is_tied(model: PreTrainedModel) -> bool:
    """Whether the family's last layer is the embedding matrix."""
    return bool(getattr(model.config, "tie_word_embeddings", True))


def load_masked_head(source: EncoderSource, model: nn.Module, *, seed: int, trust_remote_code: bool) -> MaskedHead:
    """Load a masked-language head for an encoder that is about to be trained.

    Args:
        source: Where the encoder came from.
        model: What is trained, the encoder in it.
        seed: Draws the head where the checkpoint has none.
        trust_remote_code: Whether code from the encoder's repository may run.

    Returns:
        The head, tied to the model's own embeddings.

    Raises:
        EncoderError: The family has no masked-language class.
    """
    embedding = find_classifier(model).get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    base = find_base(source) if source.kind == "adapter" else source
    set_seed(seed)
    try:
        masked, missing = _load(base, trust_remote_code=trust_remote_code)
    except LOADING_ERRORS as error:
        raise EncoderError(
            f"encoder.name: {source.name}: expected an encoder with a masked-language class in transformers, came a "
            f"{find_classifier(model).config.model_type}. Leave the methods domain_mlm and mixed_mlm out, or name "
            "another encoder."
        ) from error
    inner = f"{masked.base_model_prefix}."
    return MaskedHead(masked, embedding, is_new=any(not name.startswith(inner) for name in missing))
