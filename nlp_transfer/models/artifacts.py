"""Read an artefact back: a plain classifier, an adapter on its base, or a custom one."""

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub import errors as hub_errors
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import CAUSES, ArtifactError, EncoderError, name_cause
from nlp_transfer.files import explain_reading, find_obstacle, find_unreadable
from nlp_transfer.models.bottleneck import AdapterClassifier
from nlp_transfer.models.cloze import ClozeClassifier
from nlp_transfer.models.custom import ENCODER_FOLDER, WEIGHTS_FILE, CustomClassifier, load_pretrained
from nlp_transfer.models.digests import FileDigests, check_encoder, check_meanwhile, open_record, require_record
from nlp_transfer.models.encoder import LOADING_ERRORS, PROBLEM_TYPES, check_vocabulary, quiet_loading
from nlp_transfer.models.entailment import EntailmentClassifier
from nlp_transfer.models.resolve import ADAPTER_FILE, ARTIFACT_FILE, is_hub_id, resolve_encoder
from nlp_transfer.models.reuse import ReuseClassifier
from nlp_transfer.models.runtimes import RUNTIME_FILES, find_runtime, load_exported
from nlp_transfer.models.suitability import suit_tokenizer
from nlp_transfer.models.vector_classifier import VectorClassifier
from nlp_transfer.recipe.schema import DataConfig, EncoderConfig

__all__ = [
    "ARTIFACT_VERSION",
    "LoadedArtifact",
    "find_artifact",
    "load_artifact",
    "read_data_config",
]

ARTIFACT_VERSION = 1
TRANSPORT_ERROR: type[Exception] = hub_errors.HTTPError  # type: ignore[attr-defined]
"""What the Hub's client lets through when a connection drops: httpx's, or that of the library that follows it."""

ARTIFACT_SIGNS = (ARTIFACT_FILE, "config.json", ADAPTER_FILE, WEIGHTS_FILE)
"""Files of which every artefact's folder has one."""

HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "README.md"]
HUB_FILES += [*RUNTIME_FILES.values(), "model.onnx.data", "openvino_model.bin"]

DATA_KEYS = ("text", "text_b", "label", "label_separator")
"""What is recalled of the training data's place."""


@dataclass
class LoadedArtifact:
    """An artefact in memory.

    Attributes:
        model: In evaluation mode, float32.
        tokenizer: Its tokenizer.
        labels: The label contract.
        metadata: What ``nlp_transfer.json`` holds, without its digests; empty for a folder that another tool made.
        folder: Where it was read from.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    labels: LabelSpace
    metadata: dict[str, Any]
    folder: Path


def find_artifact(path: str | Path, *, revision: str | None = None) -> Path:
    """Find an artefact's folder: itself, the ``model/`` of a run, or a Hub repository's snapshot.

    Args:
        path: Folder, run folder or Hub id.
        revision: Branch, tag or commit of a Hub id.

    Returns:
        A local folder.

    Raises:
        ArtifactError: There is no such artefact.
    """
    folder = Path(path).expanduser()
    if (obstacle := find_obstacle(folder)) and obstacle != CAUSES[errno.ENAMETOOLONG]:
        raise ArtifactError(f"{path}: cannot be reached: {obstacle}. Mend that, or name another artefact.")
    # Unlike Path's own, these raise no error for a name that is too long for the file system.
    if os.path.isdir(folder):
        try:
            for candidate in (folder, folder / "model"):
                if any((candidate / name).is_file() for name in ARTIFACT_SIGNS):
                    return candidate
        except PermissionError as error:
            raise explain_reading(error.filename, error, ArtifactError, way_out="Name another artefact.") from error
        raise ArtifactError(
            f"{path}: holds no artefact (config.json or {ADAPTER_FILE}). Name the model/ folder of a run."
        )
    if os.path.exists(folder):
        raise ArtifactError(f"{path}: is a file. Name the model/ folder of a run.")
    name = str(path)
    if "/" not in name or not is_hub_id(name):
        raise ArtifactError(f"{path}: no such folder. Name the model/ folder of a run, or a Hub id such as owner/name.")
    hint = "HF_HUB_OFFLINE is set" if hub_constants.HF_HUB_OFFLINE else "check the name, your network and login"
    at = "" if revision is None else f" at {revision}"
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=HUB_FILES))
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, TRANSPORT_ERROR, OSError) as error:
        raise ArtifactError(
            f"{path}{at}: is neither a folder here nor to be had from the Hub ({hint}). "
            "Name the model/ folder of a run."
        ) from error


def load_artifact(path: str | Path, *, revision: str | None = None, trust_remote_code: bool = False) -> LoadedArtifact:
    """Load an artefact for use.

    Args:
        path: Folder, run folder or Hub id; plain classifiers that another tool saved load too.
        revision: Branch, tag or commit of a Hub id.
        trust_remote_code: Whether code that the encoder's repository brings may run.

    Returns:
        The model in evaluation mode with its tokenizer and label contract.

    Raises:
        ArtifactError: Missing, damaged, or its label names contradict each other.
        EncoderError: An adapter's base is not here or unsafe.
    """
    folder = find_artifact(path, revision=revision)
    # Libraries say of a file that may not be read that it is not there.
    if unreadable := find_unreadable(folder):
        raise explain_reading(*unreadable, ArtifactError, way_out="Copy it again, or train it again.")
    metadata, digests = _read_metadata(folder)
    is_adapter = metadata.get("loader") == "peft" or (folder / ADAPTER_FILE).is_file()
    if is_adapter and not metadata:
        raise ArtifactError(f"{folder}: an adapter without {ARTIFACT_FILE} does not say its labels. Load it with peft.")
    runtime = find_runtime(folder, metadata)
    is_own = metadata.get("loader") == "nlp_transfer"
    stem = "adapter_model" if is_adapter else WEIGHTS_FILE.partition(".")[0] if is_own else "model"
    if runtime is None:
        _require_weights(folder, stem)
    files = digests.get("files", {})
    with check_meanwhile({name: folder / name for name in files}, files, record=folder / ARTIFACT_FILE):
        try:
            with quiet_loading():
                tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
                if runtime is not None:
                    model: Any = load_exported(folder, runtime, trust_remote_code=trust_remote_code)
                else:
                    load = _load_adapter if is_adapter else _load_custom if is_own else _load_plain
                    model = load(folder, metadata, digests.get("encoder", {}), trust_remote_code=trust_remote_code)
        except LOADING_ERRORS as error:
            raise ArtifactError(
                f"{folder}: cannot be loaded, it may be damaged: {name_cause(error)}. Copy it again, or train it again."
            ) from error
    check_vocabulary(tokenizer, model.config, where=str(folder))
    suit_tokenizer(tokenizer, model.config, where=str(folder))
    labels = _read_labels(folder, model, metadata)
    return LoadedArtifact(model.float().eval(), tokenizer, labels, metadata, folder)


def _require_weights(folder: Path, stem: str) -> None:
    """Refuse a folder without safetensors."""
    if not any((folder / f"{stem}{end}").is_file() for end in (".safetensors", ".safetensors.index.json")):
        raise ArtifactError(
            f"{folder}: holds no {stem}.safetensors. Pickled weights are refused; convert them where you trust them."
        )


def _load_plain(folder: Path, _: Mapping[str, Any], __: FileDigests, *, trust_remote_code: bool) -> nn.Module:
    """Load a transformers classifier and refuse one with weights missing."""
    model, info = AutoModelForSequenceClassification.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        output_loading_info=True,
        trust_remote_code=trust_remote_code,
    )
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])[0]
        raise ArtifactError(f"{folder}: is not a classifier: {missing} is missing. Train one with: nlp-transfer run")
    classifier: nn.Module = model
    return classifier


def _load_adapter(
    folder: Path, metadata: Mapping[str, Any], expected: FileDigests, *, trust_remote_code: bool
) -> nn.Module:
    """Load a peft classifier on its base."""
    from peft import AutoPeftModelForSequenceClassification

    names = metadata["labels"]["names"]
    settings = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8"))
    base = settings["base_model_name_or_path"]
    try:
        source = resolve_encoder(EncoderConfig.model_validate({"name": base}))
    except EncoderError as error:
        raise EncoderError(f"{folder}: the adapter's base is missing: {error}") from error
    with check_encoder(folder / ARTIFACT_FILE, source.location, settings.get("revision"), expected):
        model: nn.Module = AutoPeftModelForSequenceClassification.from_pretrained(
            str(folder),
            num_labels=len(names),
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
            # Of a base in half precision, the trained head would be rounded to it.
            dtype=torch.float32,
            trust_remote_code=trust_remote_code,
        )
    return model


def _read_metadata(folder: Path) -> tuple[dict[str, Any], dict[str, FileDigests]]:
    """Read ``nlp_transfer.json`` and the digests in it; empty where there is none."""
    path = folder / ARTIFACT_FILE
    require_record(path)
    if not path.exists():
        return {}, {}
    try:
        metadata: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = metadata["format"]
        LabelSpace(metadata["labels"]["kind"], tuple(metadata["labels"]["names"]))
        if metadata["labels"]["kind"] not in PROBLEM_TYPES:
            raise ValueError(f"unknown kind {metadata['labels']['kind']!r}")
        reading = {key: value for key, value in metadata.get("reading", {}).items() if key != "is_pair"}
        DataConfig.model_validate(reading)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            f"{path}: cannot be read ({name_cause(error)}). Copy the artefact again, or train it again."
        ) from error
    metadata, digests = open_record(metadata, path)
    if version != ARTIFACT_VERSION:
        raise ArtifactError(
            f"{path}: has format {version}, this version reads {ARTIFACT_VERSION}. Upgrade nlp_transfer."
        )
    return metadata, digests


def _read_labels(folder: Path, model: nn.Module, metadata: Mapping[str, Any]) -> LabelSpace:
    """Take the label contract from the artefact and hold it against the model's own config."""
    config: Any = model.config
    if set(config.id2label) != set(range(config.num_labels)):
        raise ArtifactError(
            f"{folder}: expected id2label in config.json to name the labels 0 to {config.num_labels - 1}, came "
            f"{sorted(config.id2label)}. Restore it."
        )
    names = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    if metadata:
        space = LabelSpace(metadata["labels"]["kind"], tuple(metadata["labels"]["names"]))
        if space.names != names:
            raise ArtifactError(
                f"{folder}: {ARTIFACT_FILE} names the labels {list(space.names)}, config.json {list(names)}. "
                "One of the two was changed; restore it."
            )
        return space
    kinds = {problem: kind for kind, problem in reversed(PROBLEM_TYPES.items())}
    kind = kinds.get(str(getattr(config, "problem_type", None)), "regression" if len(names) == 1 else "classification")
    return LabelSpace(kind, names)  # type: ignore[arg-type]


def read_data_config(artifact: LoadedArtifact) -> DataConfig:
    """Where texts and labels stood in the training data, as far as the artefact tells.

    Args:
        artifact: In memory.

    Returns:
        The columns it names; all else at its default.

    Raises:
        ArtifactError: The record of the recipe is damaged.
    """
    try:
        data = (artifact.metadata.get("recipe") or {}).get("data") or {}
        return DataConfig.model_validate({key: data[key] for key in DATA_KEYS if key in data})
    except (ValueError, TypeError, AttributeError) as error:
        raise ArtifactError(
            f"{artifact.folder}: expected the recipe to say where texts and labels stood, came another record "
            f"({name_cause(error)}). Copy the artefact again, or train it again."
        ) from error


CUSTOM_KINDS: dict[str, type[CustomClassifier]] = {
    each.kind: each
    for each in (VectorClassifier, ClozeClassifier, AdapterClassifier, EntailmentClassifier, ReuseClassifier)
}
"""Class by its name in ``nlp_transfer.json``."""


def _load_custom(
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
