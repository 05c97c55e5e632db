"""Classifiers that neither transformers nor peft can load: what they share, how they are written and read back."""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.models.encoder import PROBLEM_TYPES, quiet_loading

__all__ = ["ENCODER_FOLDER", "WEIGHTS_FILE", "CustomClassifier", "load_pretrained"]

ENCODER_FOLDER = "encoder"
WEIGHTS_FILE = "own.safetensors"


class CustomClassifier(nn.Module):
    """A custom classifier around an encoder.

    A child names its kind, takes ``(encoder, labels, **settings)``, and gives logits. What is written is its settings
    (JSON), the weights that are not the encoder's, and the encoder itself where it moved. Of the settings,
    ``temperature`` is read here: a child that can be calibrated takes it and hands it on.

    Args:
        encoder: A pretrained model of the class that ``auto`` loads.
        labels: What the columns of the logits mean.
        settings: Whatever else the constructor takes, plain JSON.
    """

    kind: ClassVar[str]
    """Name in ``nlp_transfer.json``."""

    auto: ClassVar[Any]
    """The ``Auto`` class of transformers that loads the encoder."""

    keeps_labels: ClassVar[bool] = False
    """Whether the encoder is itself a classifier of these labels, its new head among this class's own weights."""

    def __init__(self, encoder: PreTrainedModel, labels: LabelSpace, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.encoder = encoder
        self.settings = dict(settings)
        self.saves_encoder = False
        self.temperature = float(self.settings.get("temperature", 1.0))
        config: PretrainedConfig = copy.deepcopy(encoder.config)
        config.num_labels = labels.num_outputs
        config.id2label, config.label2id = labels.id2label, labels.label2id
        config.problem_type = PROBLEM_TYPES[labels.kind]
        self.config = config

    @abstractmethod
    def compute(self, inputs: dict[str, Tensor]) -> Tensor:
        """Give the logits of B texts.

        Args:
            inputs: ``input_ids``, ``attention_mask`` and, where they are given, ``token_type_ids``: shape (B, L).

        Returns:
            Float32, shape (B, C).
        """

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> SequenceClassifierOutput:
        """Give the logits, divided by the temperature, in the form that transformers' own classifiers have."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            inputs["token_type_ids"] = token_type_ids
        logits_BC = self.compute(inputs)
        return SequenceClassifierOutput(logits=logits_BC / self.temperature)

    def set_temperature(self, temperature: float) -> None:
        """Divide all logits by a number from now on; it is saved among the settings."""
        self.settings["temperature"] = self.temperature = temperature

    def rescale(self, mean: float, deviation: float) -> None:
        """Give numbers in a target's own unit from now on, in place of standard deviations from its mean.

        Args:
            mean: Of the targets that it was trained on.
            deviation: Their standard deviation.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no numbers")

    def collect_custom(self) -> dict[str, Tensor]:
        """Everything to save beside the encoder, by name."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("encoder.")}

    def restore_custom(self, tensors: Mapping[str, Tensor]) -> None:
        """Take those weights back.

        Raises:
            ValueError: One is missing, superfluous or of another shape.
        """
        expected = self.collect_custom()
        if expected.keys() != tensors.keys():
            wrong = sorted(expected.keys() ^ tensors.keys())[0]
            raise ValueError(f"{WEIGHTS_FILE} and {type(self).__name__} disagree about {wrong}")
        self.load_state_dict(dict(tensors), strict=False)


def load_pretrained(
    auto: Any,
    location: str | Path,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    num_labels: int | None = None,
) -> tuple[PreTrainedModel, set[str]]:
    """Load an encoder of any class in float32 from safetensors.

    Args:
        auto: An ``Auto`` class of transformers.
        location: Folder or Hub id.
        revision: Of a Hub id.
        trust_remote_code: Whether code from the repository may run.
        num_labels: Outputs of a new classification head; as the checkpoint says where absent.

    Returns:
        The model in evaluation mode, and the names of weights that the checkpoint did not hold.
    """
    head = {} if num_labels is None else {"num_labels": num_labels}
    with quiet_loading():
        model, info = auto.from_pretrained(
            location,
            revision=revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **head,
        )
    missing = set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}
    return model.eval(), missing
