"""LoRA: low-rank updates of the attention, and the head; the encoder itself does not move."""

from peft import LoraConfig as PeftLoraConfig
from peft import TaskType, get_peft_model

from nlp_transfer.models.encoder import LoadedEncoder, quiet_loading
from nlp_transfer.models.heads import find_head_modules, find_new_modules
from nlp_transfer.models.layers import find_lora_targets
from nlp_transfer.recipe.schema import LoraConfig
from nlp_transfer.strategies.base import Adapted, Strategy

__all__ = ["STRATEGY", "adapt_lora"]


def adapt_lora(loaded: LoadedEncoder, config: LoraConfig) -> Adapted:
    """Wrap the encoder with low-rank updates through ``peft``.

    Every module that the checkpoint did not hold is trained and saved beside the update: peft keeps only what it is
    told to, and a randomly drawn pooler would otherwise be drawn again at the next load.

    Args:
        loaded: The encoder with its new head.
        config: Rank, scale, dropout and layers.

    Returns:
        The wrapped model; an adapter folder is what gets saved.

    Source:
        Hu et al. 2021, https://arxiv.org/abs/2106.09685. Applied to query and value as in section 5.1.
    """
    model = loaded.model
    prefix = f"{model.base_model_prefix}."
    heads = [name for name in find_head_modules(model) if not name.startswith(prefix)]
    saved = list(dict.fromkeys([*heads, *find_new_modules(model, loaded.new_parameters)]))
    settings = PeftLoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=find_lora_targets(model, config.targets),
        modules_to_save=saved,
        base_model_name_or_path=loaded.source.location,
        revision=loaded.source.revision,
    )
    new = set(loaded.new_parameters)
    with quiet_loading():
        wrapped = get_peft_model(model, settings)
    opened = frozenset(
        name
        for name, parameter in wrapped.named_parameters()
        if parameter.requires_grad and ".modules_to_save." in name and _strip(name) in new
    )
    return Adapted(wrapped, "peft", new_parameters=opened, merge=config.merge)


def _strip(name: str) -> str:
    """Turn a parameter's name inside peft's wrapper into its name in the plain model."""
    return name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")


STRATEGY = Strategy(kind="lora", adapt=adapt_lora)
