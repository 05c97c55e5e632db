"""Settings of LoRA and its kin."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nlp_transfer.recipe.section import OpenShare, PositiveInt, Section

__all__ = ["LoraConfig"]


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
