"""Settings of LoRA and its variants."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import OpenShare, PositiveInt, TechniqueSection
from nlp_transfer.recipe.strategies.facts import LOSS, SCHEDULE, SLOW_START, Gain, Knob, StrategyFacts

__all__ = ["FACTS", "LoraConfig"]


class LoraConfig(TechniqueSection):
    """Train low-rank updates of the weight matrices and the head (Hu et al. 2021)."""

    use_when: ClassVar[str] = "nearly the accuracy of full, with little memory and a small file to share"

    kind: Literal["lora"]
    variant: Literal["lora", "dora", "adalora", "vera", "ia3", "oft", "fourierft", "loha", "lokr", "miss"] = Field(
        "lora",
        description="dora: separate magnitude and direction (Liu et al. 2024). adalora: more rank for the matrices "
        "that matter (Zhang et al. 2023). vera: shared random matrices, only scales are trained (Kopiczko "
        "et al. 2024). ia3: scales of query, value and feed-forward (Liu et al. 2022). oft: rotations of "
        "the inputs (Qiu et al. 2023). fourierft: a few frequencies (Gao et al. 2024). loha, lokr: "
        "Hadamard and Kronecker products (Hyeon-Woo et al. 2022, Yeh et al. 2024). miss: one shared "
        "matrix (Kang and Yin 2024).",
    )
    rank: PositiveInt = Field(
        8, description="Rank of the update; with adalora the mean rank at the end, with oft the width of a rotation."
    )
    alpha: PositiveInt = Field(
        16, description="Scale of the update: alpha / rank. Only the variants of LoRA, loha and lokr have it."
    )
    dropout: OpenShare = Field(
        0.0, description="Dropout on the input of the update; it costs as much time as the update itself."
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
        description="Names of the linear layers to adapt; if absent, all (lora, dora, adalora) or the attention's "
        "query and value (other variants).",
    )
    frequencies: PositiveInt = Field(1000, description="Trained frequencies of each matrix (fourierft).")
    quantize: Literal["none", "4bit", "8bit"] = Field(
        "none",
        description="Hold the frozen matrices in 4 bits (QLoRA, Dettmers et al. 2023) or 8 bits (Dettmers et al. 2022) "
        "while training, on NVIDIA GPUs; the saved adapter loads on the unquantized encoder.",
    )
    merge: bool = Field(False, description="Merge the update into the encoder and save a plain transformers folder.")


FACTS = StrategyFacts(
    LoraConfig,
    says="low-rank updates",
    trains="inside",
    loads_with="peft",
    recipe="sentiment/lora",
    recipe_many="intent/lora",
    learning_rate=1e-3,
    # Tried on 1,500 rows of TREC, most variants at one rate only; vera's rate has the magnitude of its paper's.
    variant_rates={
        "fourierft": 5e-2,
        "ia3": 1e-2,
        "lokr": 1e-2,
        "loha": 3e-3,
        "miss": 2e-3,
        "oft": 5e-3,
        "vera": 5e-3,
    },
    space=(
        *SCHEDULE,
        *LOSS,
        Knob("strategy.rank", choices=(4, 8, 16, 32)),
        Knob("strategy.alpha", choices=(8, 16, 32, 64)),
        Knob("strategy.dropout", choices=(0.0, 0.05, 0.1)),
        Knob("strategy.rate_ratio", choices=(1.0, 4.0, 16.0)),
        Knob("strategy.frequencies", choices=(500, 1000, 2000)),
    ),
    step=2.7,  # most weights need no gradient and no optimizer step
    rung=6,
    work=1.0,
    stretch=SLOW_START,
    worth=0.8,
    gain=Gain((0.05, 0.20, -0.12, 0.05, 0.02), (0.046, 0.16, -0.102, 0.051, 0.021), 0.059),
)
