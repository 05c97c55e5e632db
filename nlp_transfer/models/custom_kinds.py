"""The table of custom classifiers, and how one is built again from its folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import ArtifactError, EncoderError
from nlp_transfer.models.bottleneck import AdapterClassifier
from nlp_transfer.models.cloze import ClozeClassifier
from nlp_transfer.models.custom import ENCODER_FOLDER, WEIGHTS_FILE, CustomClassifier, load_pretrained
from nlp_transfer.models.digests import FileDigests, check_encoder
from nlp_transfer.models.encoder_source import ARTIFACT_FILE, resolve_encoder
from nlp_transfer.models.entailment import EntailmentClassifier
from nlp_transfer.models.reuse import ReuseClassifier
from nlp_transfer.models.vector_classifier import VectorClassifier
from nlp_transfer.recipe.schema import EncoderConfig

__all__ = ["CUSTOM_KINDS", "load_custom"]

CUSTOM_KINDS: dict[str, type[CustomClassifier]] = {
    each.kind: each
    for each in (VectorClassifier, ClozeClassifier, AdapterClassifier, EntailmentClassifier, ReuseClassifier)
}
"""Class by its name in ``nlp_transfer.json``."""


def load_custom(
    folder: Path, metadata: Mapping[str, Any], expected: FileDigests | None = None, *, trust_remote_code: bool = False
) -> CustomClassifier:
    """Build a classifier again from its folder.

    Args:
        folder: The ``model/`` folder.
        metadata: What ``nlp_transfer.json`` holds.
        expected: Digests of an encoder that the folder does not hold.
        trust_remote_code: Whether code that the encoder's repository brings may run.

    Returns:
        The classifier in evaluation mode.

    Raises:
        ArtifactError: A file is missing, or of another version; the encoder is another than that it was made for.
        EncoderError: The encoder is not where it was.
    """
    architecture = metadata.get("architecture")
    if not isinstance(architecture, Mapping) or architecture.get("kind") not in CUSTOM_KINDS:
        known = ", ".join(CUSTOM_KINDS)
        raise ArtifactError(f"{folder}: expected an architecture of the kinds {known} in nlp_transfer.json. Upgrade.")
    labels = LabelSpace(metadata["labels"]["kind"], tuple(metadata["labels"]["names"]))
    kind = CUSTOM_KINDS[architecture["kind"]]
    where, revision = _find_encoder(folder, architecture["encoder"])
    own: dict[str, Tensor] = load_file(folder / WEIGHTS_FILE)
    with check_encoder(folder / ARTIFACT_FILE, where, revision, expected or {}):
        encoder, missing = load_pretrained(
            kind.auto,
            where,
            revision=revision,
            trust_remote_code=trust_remote_code,
            num_labels=labels.num_outputs if kind.keeps_labels else None,
        )
    model = kind(encoder, labels, **architecture["settings"])
    model.restore_custom(own)
    left = {name for name in missing if f"encoder.{name}" not in own and f"encoder.{name}" in model.state_dict()}
    if left:
        raise ArtifactError(f"{where}: the encoder lacks {sorted(left)[0]}. Copy it again, or train again.")
    return model.eval()


def _find_encoder(folder: Path, encoder: Mapping[str, Any]) -> tuple[str, str | None]:
    """Where the encoder is: in the folder, where it was, or on the Hub."""
    if encoder.get("location") is None:
        inside = folder / ENCODER_FOLDER
        if not (inside / "model.safetensors").is_file() and not (inside / "model.safetensors.index.json").is_file():
            raise ArtifactError(f"{inside}: holds no model.safetensors. Copy the artefact again, or train it again.")
        json.loads((inside / "config.json").read_text(encoding="utf-8"))
        return str(inside), None
    try:
        source = resolve_encoder(EncoderConfig.model_validate({"name": str(encoder["location"])}))
    except EncoderError as error:
        if not encoder.get("hub_id"):
            raise EncoderError(f"{folder}: its encoder is missing: {error}") from error
        source = resolve_encoder(EncoderConfig.model_validate({"name": str(encoder["hub_id"])}))
    return source.location, encoder.get("revision")
