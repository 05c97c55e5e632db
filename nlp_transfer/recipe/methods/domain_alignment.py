"""Settings of domain alignment."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from nlp_transfer.contracts import TaskKind
from nlp_transfer.recipe.methods.facts import MethodFacts
from nlp_transfer.recipe.section import PositiveInt, TechniqueSection
from nlp_transfer.recipe.strategies.facts import Knob

__all__ = ["FACTS", "DomainAlignmentConfig"]

WEIGHTS = {"dann": 0.1, "cdan": 0.1, "coral": 10.0, "mmd": 1.0}
"""Weight of each loss where none is given. Of the two with a head: chosen. coral: chosen; the relative distance is near
0.02 for sentence encoders and 32 examples a side, and Sun and Saenko 2016 want a weight by which it ends about as large
as the task's loss. mmd: within the range that Long et al. 2015 search, 0.1 to 2."""


class DomainAlignmentConfig(TechniqueSection):
    """Learn features from which the domain of a text cannot be predicted (Ganin et al. 2016)."""

    use_when: ClassVar[str] = "labels of one domain and texts of another, with features that differ between the two"

    kind: Literal["domain_alignment"]
    loss: Literal["dann", "cdan", "coral", "mmd"] = Field(
        "dann",
        description="dann: a head predicts the domain, and the encoder gets its gradient reversed. cdan: the head "
        "reads the predicted probabilities too (Long et al. 2018). coral: distance of covariances (Sun and Saenko "
        "2016). mmd: distance of mean kernels (Long et al. 2015).",
    )
    weight: Annotated[float, Field(ge=0)] = Field(
        default_factory=lambda data: WEIGHTS[data.get("loss", "dann")],
        description="Most that the alignment counts; it grows from 0 over the training. 0 is off. Where absent: dann "
        "and cdan 0.1, coral 10, mmd 1.",
    )
    steepness: Annotated[float, Field(gt=0)] = Field(
        10.0, description="How fast the weight grows (gamma of Ganin et al. 2016, section 5.2.2)."
    )
    hidden: PositiveInt = Field(
        100, description="Width of the hidden layer of the head of dann and cdan (Ganin et al. 2016)."
    )
    entropy: bool = Field(
        False, description="cdan: examples whose prediction is sure count up to twice (Long et al. 2018, equation 8)."
    )
    relative: bool = Field(
        True,
        description="coral: in the square of the features' mean variance, so that a weight suits every encoder; false: "
        "the distance as Sun and Saenko 2016 have it.",
    )
    kernel: Literal["gaussian", "laplace"] = Field(
        "gaussian", description="mmd: gaussian falls with the squared distance of two examples, laplace with it."
    )


READERS = {"hidden": ("dann", "cdan"), "entropy": ("cdan",), "relative": ("coral",), "kernel": ("mmd",)}
"""Losses that read a key."""


def _find_conflicts(config: DomainAlignmentConfig, task: TaskKind) -> Iterator[str]:
    """Keys belong to their losses, and probabilities to tasks of exclusive classes."""
    for key, losses in READERS.items():
        usual: Any = DomainAlignmentConfig.model_fields[key].default
        if config.loss not in losses and getattr(config, key) != usual:
            yield f"methods.domain_alignment.{key}: does not apply to loss {config.loss}. Remove it."
    if config.loss == "cdan" and task not in ("classification", "ordinal"):
        yield (
            f"methods.domain_alignment.loss: cdan reads probabilities of exclusive classes, which task.kind {task} has "
            "not. Use dann, coral or mmd."
        )


FACTS = MethodFacts(
    DomainAlignmentConfig,
    recipe="domain/dann",
    phase="change",
    trains=("all", "upper", "inside"),
    tasks=("classification", "ordinal", "multi_label", "regression"),
    space=(Knob("methods.domain_alignment.weight", reach=5.0),),
    is_off=lambda config: config.weight == 0,
    needs_texts=True,
    replaces_window=True,
    find_conflicts=_find_conflicts,
)
