"""The strategy section of a recipe: one model a strategy."""

import math
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field

from nlp_transfer.recipe.section import OpenShare, PositiveInt, Section
from nlp_transfer.recipe.strategies_added import AdaptersConfig, PromptsConfig
from nlp_transfer.recipe.strategies_direct import FeaturesConfig, FewShotConfig, ZeroShotConfig

__all__ = [
    "LEARNING_RATES",
    "STRATEGY_CONFIGS",
    "VARIANT_RATES",
    "AdaptersConfig",
    "DistillConfig",
    "FeaturesConfig",
    "FrozenConfig",
    "FullConfig",
    "LayerwiseConfig",
    "LoraConfig",
    "PromptsConfig",
    "StrategyConfig",
    "ZeroShotConfig",
    "find_learning_rate",
]


class FullConfig(Section):
    """Train every weight."""

    use_when: ClassVar[str] = "thousands of rows, or texts unlike those the encoder was pretrained on"

    kind: Literal["full"]
    l2_sp: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Pull towards the pretrained weights (L2-SP, Li et al. 2018); 0 is off."
    )
    mixout: OpenShare = Field(
        0.0, description="Share of weights swapped for the pretrained ones in each step (Lee et al. 2020); 0 is off."
    )
    head_init: Literal["random", "probe"] = Field(
        "random", description="probe: the head is fitted on frozen features first (LP-FT, Kumar et al. 2022)."
    )
    probe_epochs: PositiveInt = Field(20, description="Passes over the cached features for head_init probe; chosen.")
    probe_learning_rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="Peak rate of the probe; chosen.")


class FrozenConfig(Section):
    """Train the head only; the encoder stays as it was pretrained."""

    use_when: ClassVar[str] = "few rows, little time, or one encoder that serves several tasks"

    kind: Literal["frozen"]
    cache_prefix: bool = Field(True, description="Run the frozen encoder once over the data, not once an epoch.")


class LayerwiseConfig(Section):
    """Train some of the layers, or all at rates that fall from the top."""

    use_when: ClassVar[str] = "hundreds of rows like the encoder's own world, or full is too slow"

    kind: Literal["layerwise"]
    freeze_embeddings: bool = Field(True, description="Leave token and position embeddings as they are.")
    freeze_layers: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Layers from the bottom that stay as they are; half of them where absent."
    )
    only: Literal["all", "biases", "norms"] = Field(
        "all", description="Of the open layers: everything, biases (BitFit, Ben Zaken et al. 2021) or norms."
    )
    unfreeze: Literal["at_once", "gradual"] = Field(
        "at_once", description="gradual: one layer more an epoch, from the top (Howard and Ruder 2018)."
    )
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        1.0, description="Factor on the learning rate for each layer further down (Clark et al. 2020)."
    )
    reinit_layers: Annotated[int, Field(ge=0)] = Field(
        0, description="Layers from the top that are drawn anew (Zhang et al. 2021)."
    )
    cache_prefix: bool = Field(True, description="Run the frozen layers once over the data, not once an epoch.")


class LoraConfig(Section):
    """Train low-rank updates of the weight matrices and the head (Hu et al. 2021)."""

    use_when: ClassVar[str] = "nearly the accuracy of full, with little memory and a small file to share"

    kind: Literal["lora"]
    variant: Literal["lora", "dora", "adalora", "vera", "ia3", "oft", "fourierft", "loha", "lokr", "miss"] = Field(
        "lora",
        description="dora: magnitude apart from direction (Liu et al. 2024). adalora: ranks are dealt out where they "
        "count (Zhang et al. 2023). vera: shared random matrices, only scales are trained (Kopiczko et al. 2024). ia3: "
        "scales of query, value and feed-forward (Liu et al. 2022). oft: rotations of the inputs (Qiu et al. 2023). "
        "fourierft: a few frequencies (Gao et al. 2024). loha, lokr: products of Hadamard and Kronecker (Hyeon-Woo et "
        "al. 2022, Yeh et al. 2024). miss: one shared matrix (Kang and "
        "Yin 2024).",
    )
    rank: PositiveInt = Field(
        8, description="Rank of the update; with adalora the mean rank at the end, with oft the width of a rotation."
    )
    alpha: PositiveInt = Field(
        16, description="Scale of the update: alpha / rank. Only the variants of LoRA, loha and lokr have it."
    )
    dropout: OpenShare = Field(
        0.0, description="Dropout on the input of the update; it takes as long as the update itself does."
    )
    rank_stabilized: bool = Field(False, description="Scale by alpha / sqrt(rank) (rsLoRA, Kalajdzievski 2023).")
    init: Literal["default", "pissa"] = Field(
        "default", description="pissa: start from the largest singular vectors of each matrix (Meng et al. 2024)."
    )
    rate_ratio: Annotated[float, Field(ge=1)] = Field(
        1.0, description="Learning rate of matrix B over that of A (LoRA+, Hayou et al. 2024, who advise 16)."
    )
    targets: list[str] | None = Field(
        None,
        description="Names of the linear layers to adapt; where absent all of them (lora, dora, adalora) or the "
        "attention's query and value (the other variants).",
    )
    frequencies: PositiveInt = Field(1000, description="Trained frequencies of each matrix (fourierft).")
    quantize: Literal["none", "4bit", "8bit"] = Field(
        "none",
        description="Hold the frozen matrices in 4 bits (QLoRA, Dettmers et al. 2023) or 8 bits (Dettmers et al. 2022) "
        "while training, on NVIDIA GPUs; what is saved goes on the encoder as it was published.",
    )
    merge: bool = Field(False, description="Fold the update into the encoder: a plain transformers folder is saved.")


class DistillConfig(Section):
    """Train a smaller encoder on what a fine-tuned classifier says of the texts (Hinton et al. 2015)."""

    use_when: ClassVar[str] = "a good classifier that is too slow, and many texts, labelled or not"

    kind: Literal["distill"]
    teacher: str = Field(min_length=1, description="Fine-tuned classifier of the same labels: run, folder or Hub id.")
    temperature: Annotated[float, Field(gt=0)] = Field(
        2.0, description="Softens what teacher and student say before the two are compared; no matter in a regression."
    )
    alpha: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.7, description="Weight of the teacher in the loss; the rest is that of the label. Chosen."
    )
    unlabelled: str | None = Field(None, min_length=1, description="Table of further texts, which the teacher labels.")
    keep_layers: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] | None = Field(
        None,
        description="Layers that the student keeps: how many, evenly spread, or which, 1 the first; all if absent.",
    )


StrategyConfig = Annotated[
    FullConfig
    | LayerwiseConfig
    | FrozenConfig
    | FeaturesConfig
    | FewShotConfig
    | ZeroShotConfig
    | LoraConfig
    | AdaptersConfig
    | PromptsConfig
    | DistillConfig,
    Field(discriminator="kind"),
]

STRATEGY_CONFIGS: dict[str, type[Section]] = {
    get_args(section.model_fields["kind"].annotation)[0]: section for section in get_args(get_args(StrategyConfig)[0])
}
"""Section of each strategy by its kind, in the order above."""

LEARNING_RATES: dict[str, float] = {
    "full": 5e-5,
    "layerwise": 1e-4,
    "frozen": 1e-3,
    "few_shot": 1e-4,
    "lora": 1e-3,
    "adapters": 3e-3,
    "prompts": 1e-1,
    "distill": 1e-4,
}
"""Peak learning rate of each strategy that has one, where a recipe names none; full is BERT's upper choice
(Devlin et al. 2019)."""

VARIANT_RATES: dict[tuple[str, str], float] = {
    ("lora", "fourierft"): 5e-2,
    ("lora", "ia3"): 1e-2,
    ("lora", "lokr"): 1e-2,
    ("lora", "loha"): 3e-3,
    ("lora", "miss"): 2e-3,
    ("lora", "oft"): 5e-3,
    ("lora", "vera"): 5e-3,
    ("adapters", "houlsby"): 1e-3,
    ("adapters", "parallel"): 1e-3,
    ("prompts", "p_tuning"): 1e-2,
    ("prompts", "prefix"): 3e-2,
}
"""Peak learning rate of variants that need another than their strategy; tried on 1,500 rows of TREC, most
of them at one rate; that of vera is of the order that its paper has."""


PISSA_SLOWER = 4.0
"""Divides the rate where both matrices start large; chosen."""


def find_learning_rate(strategy: StrategyConfig) -> float | None:
    """Give the peak learning rate of a strategy where a recipe names none.

    Args:
        strategy: Its section.

    Returns:
        The rate of its variant, else that of its kind; None where nothing is trained by gradients.

    Example:
        >>> find_learning_rate(LoraConfig(kind="lora", variant="ia3")), find_learning_rate(LoraConfig(kind="lora"))
        (0.01, 0.001)
    """
    kind = str(strategy.kind)
    rate = VARIANT_RATES.get((kind, getattr(strategy, "variant", "")), LEARNING_RATES.get(kind))
    if isinstance(strategy, LoraConfig) and rate is not None:
        # What makes the same step move the product of the two matrices further takes a smaller one.
        rate /= math.sqrt(strategy.rate_ratio)
        rate /= math.sqrt(strategy.rank) if strategy.rank_stabilized else 1.0
        rate /= PISSA_SLOWER if strategy.init == "pissa" else 1.0
    return rate
