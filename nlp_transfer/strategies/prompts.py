"""Prompts: vectors in front of every text are trained, and the head; the encoder itself does not move."""

import inspect
from typing import Any

import torch
from peft import PeftModel, PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

from nlp_transfer.errors import RecipeError
from nlp_transfer.models.encoder import LoadedEncoder
from nlp_transfer.recipe.schema import PromptsConfig
from nlp_transfer.strategies.base import Adapted, Strategy
from nlp_transfer.strategies.wrapping import ADAPTER, describe_saved, list_opened, wrap_encoder

__all__ = ["STRATEGY", "adapt_prompts"]


def adapt_prompts(loaded: LoadedEncoder, config: PromptsConfig) -> Adapted:
    """Put trained vectors in front of what the encoder reads, through ``peft``.

    Args:
        loaded: The encoder with its new head.
        config: Where the vectors go, how many there are, and how they begin.

    Returns:
        The wrapped model; an adapter folder is what gets saved.

    Raises:
        RecipeError: The family takes no keys and values from outside, which prefix tuning gives it.

    Source:
        Li and Liang 2021 (prefix), https://arxiv.org/abs/2101.00190; Lester et al. 2021 (prompt),
        https://arxiv.org/abs/2104.08691; Liu et al. 2021 (p_tuning), https://arxiv.org/abs/2103.10385, without its
        LSTM. Departure: the head is trained too. With prompt and p_tuning a head that reads the first token reads the
        first prompt.
    """
    model = loaded.model
    if config.variant == "prefix" and not _takes_keys(model):
        raise RecipeError(
            [
                f"strategy.variant: prefix gives every layer keys and values to read, which {loaded.family} does not "
                "take. Use strategy.variant=p_tuning or prompt."
            ]
        )
    wrapped = wrap_encoder(model, _choose_settings(loaded, config))
    encoder = wrapped.prompt_encoder[ADAPTER]
    for name, module in list(encoder.named_children()):
        # peft takes what ends in "head", such as ModernBERT's own head, for that head.
        if isinstance(module, ModulesToSaveWrapper):
            setattr(encoder, name, module.original_module.requires_grad_(True))
    return Adapted(wrapped, "peft", new_parameters=list_opened(wrapped, loaded), to_artifact=_keep_vectors)


def _takes_keys(model: PreTrainedModel) -> bool:
    """Whether the encoder reads keys and values that come from outside."""
    encoder = getattr(model, model.base_model_prefix)
    return "past_key_values" in inspect.signature(encoder.forward).parameters


def _choose_settings(loaded: LoadedEncoder, config: PromptsConfig) -> Any:
    """Lay out peft's own settings; it does not find every family's sizes."""
    model = loaded.model
    embeddings: Any = model.get_input_embeddings()
    width = int(embeddings.weight.shape[1])
    common: dict[str, Any] = {
        "num_virtual_tokens": config.tokens,
        "num_layers": model.config.num_hidden_layers,
        "num_attention_heads": model.config.num_attention_heads,
        **describe_saved(loaded),
    }
    if config.variant == "prefix":
        hidden = int(model.config.hidden_size)
        return PrefixTuningConfig(
            token_dim=hidden, prefix_projection=config.project, encoder_hidden_size=hidden, **common
        )
    if config.variant == "p_tuning":
        return PromptEncoderConfig(token_dim=width, encoder_hidden_size=width, **common)
    start = "SAMPLE_VOCAB" if config.init == "vocabulary" else "RANDOM"
    return PromptTuningConfig(token_dim=width, prompt_tuning_init=start, **common)


def _keep_vectors(model: nn.Module) -> nn.Module:
    """Keep the vectors and drop the network that made them: the loaded model reads nothing else."""
    assert isinstance(model, PeftModel)
    settings: Any = model.peft_config[ADAPTER]
    encoder = model.prompt_encoder[ADAPTER]
    with torch.no_grad():
        vectors = model.get_prompt_embedding_to_save(ADAPTER).to(encoder.embedding.weight.device)
    for name, _ in list(encoder.named_children()):
        delattr(encoder, name)
    encoder.embedding = nn.Embedding.from_pretrained(vectors, freeze=False)
    settings.inference_mode = True
    kept: nn.Module = model
    return kept


STRATEGY = Strategy(kind="prompts", adapt=adapt_prompts)
