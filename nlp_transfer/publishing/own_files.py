"""The files of classifiers in a form of their own: weights beside an encoder, or beside a word on where it is."""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from nlp_transfer.models.encoder import quiet_loading
from nlp_transfer.models.own import ENCODER_FOLDER, WEIGHTS_FILE, OwnClassifier
from nlp_transfer.models.sources import EncoderSource

__all__ = ["describe_architecture", "keeps_encoder", "stage_own"]


def keeps_encoder(model: OwnClassifier, source: EncoderSource) -> bool:
    """Whether an artefact holds its encoder: where that moved, or was itself an artefact."""
    return model.saves_encoder or source.is_artifact


def stage_own(stage: Path, model: OwnClassifier, source: EncoderSource) -> None:
    """Write the weights of a classifier into a folder; its encoder too where it moved or was itself an artefact.

    Args:
        stage: An empty folder.
        model: The classifier.
        source: Where its encoder came from.
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.collect_own().items()}
    # A classifier without weights of its own still has the file, so that what is missing can be told from that.
    save_file(tensors, stage / WEIGHTS_FILE, metadata={"format": "pt"})
    if keeps_encoder(model, source):
        with quiet_loading():
            model.encoder.save_pretrained(stage / ENCODER_FOLDER)


def describe_architecture(model: OwnClassifier, source: EncoderSource) -> dict[str, Any]:
    """Say what builds the classifier again.

    Args:
        model: The classifier.
        source: Where its encoder came from.

    Returns:
        JSON: ``kind``, ``settings`` and ``encoder``, whose ``location`` is None where it lies in the folder.
    """
    is_inside = keeps_encoder(model, source)
    encoder = {
        "location": None if is_inside else source.location,
        "revision": None if is_inside else source.revision,
        "hub_id": source.hub_id,
    }
    return {"kind": model.kind, "settings": model.settings, "encoder": encoder}
