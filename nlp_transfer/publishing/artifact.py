"""The ``model/`` folder: written so that plain transformers or peft loads it, read back with its label contract."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants as hub_constants
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from peft import AutoPeftModelForSequenceClassification, PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.errors import ArtifactError, EncoderError, StorageError
from nlp_transfer.models.encoder import LOADING_ERRORS, PROBLEM_TYPES, check_vocabulary, quiet_loading
from nlp_transfer.models.merge import merge_adapter
from nlp_transfer.models.own import WEIGHTS_FILE, OwnClassifier
from nlp_transfer.models.sources import ADAPTER_FILE, ARTIFACT_FILE, EncoderSource, is_hub_id, resolve_encoder
from nlp_transfer.publishing.own_files import describe_architecture, load_own, stage_own
from nlp_transfer.recipe.schema import DataConfig, EncoderConfig

__all__ = ["LoadedArtifact", "find_artifact", "load_artifact", "save_artifact", "write_atomically"]

ARTIFACT_VERSION = 1
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "README.md"]


@dataclass
class LoadedArtifact:
    """An artefact in memory.

    Attributes:
        model: In evaluation mode, float32.
        tokenizer: Its tokenizer.
        labels: The label contract.
        metadata: What ``nlp_transfer.json`` holds; empty for a folder that another tool made.
        folder: Where it was read from.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    labels: LabelSpace
    metadata: dict[str, Any]
    folder: Path


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file aside, sync it and rename it over its name.

    Args:
        path: Where it ends up.
        content: Text is written as UTF-8.

    Raises:
        StorageError: The disk is full or failing; what was there stays.
    """
    aside = path.with_name(f".{path.name}.writing")
    try:
        with aside.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise StorageError(
            f"{path}: could not be written: {error}. Free space and run the same command again."
        ) from error


def save_artifact(
    folder: Path,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    *,
    labels: LabelSpace,
    source: EncoderSource,
    merge: bool,
    metadata: Mapping[str, Any],
) -> str:
    """Write an artefact; a failure leaves nothing behind and touches nothing earlier.

    Args:
        folder: The ``model/`` folder to make.
        model: A family's own classifier, one wrapped by peft, or one in a form of its own; its weights are float32.
        tokenizer: Saved beside it.
        labels: The label contract.
        source: The encoder the model started from.
        merge: Fold a peft update into the encoder and save a plain folder; the model in memory changes.
        metadata: Further JSON for ``nlp_transfer.json``: recipe, reading settings, versions.

    Returns:
        ``transformers``, ``peft`` or ``nlp_transfer``: what loads the folder.

    Raises:
        StorageError: The disk is full or failing.
    """
    base_folder = folder.with_name("base")
    stage, base_stage = (place.with_name(f".{place.name}.writing") for place in (folder, base_folder))
    try:
        for stale in (stage, base_stage):
            shutil.rmtree(stale, ignore_errors=True)
        stage.mkdir(parents=True)
        kind = _stage_model(stage, base_stage, base_folder.resolve(), model, source=source, merge=merge)
        tokenizer.save_pretrained(stage)
        record = {
            "format": ARTIFACT_VERSION,
            "loader": kind,
            "labels": {"kind": labels.kind, "names": list(labels.names)},
            "encoder": {"name": source.name, "hub_id": source.hub_id, "revision": source.revision},
            **({"architecture": describe_architecture(model, source)} if isinstance(model, OwnClassifier) else {}),
            **metadata,
        }
        (stage / ARTIFACT_FILE).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        _move_in([(part, place) for part, place in ((base_stage, base_folder), (stage, folder)) if part.exists()])
    except (OSError, SafetensorError) as error:
        for part in (stage, base_stage):
            shutil.rmtree(part, ignore_errors=True)
        raise StorageError(
            f"{folder}: the model could not be saved: {error}. Free space and run the same command again: "
            "it goes on from the last checkpoint."
        ) from error
    return kind


def _stage_model(
    stage: Path, base_stage: Path, base_folder: Path, model: nn.Module, *, source: EncoderSource, merge: bool
) -> str:
    """Write the weights aside, an adapter's own base too; say what loads them."""
    if isinstance(model, OwnClassifier):
        stage_own(stage, model, source)
        return "nlp_transfer"
    if isinstance(model, PeftModel) and not merge:
        if source.is_artifact:
            _save_base(base_stage, model)
        _save_adapter(stage, model, base_folder if source.is_artifact else None, source)
        return "peft"
    plain = merge_adapter(model) if isinstance(model, PeftModel) else model
    assert isinstance(plain, PreTrainedModel)
    with quiet_loading():
        plain.save_pretrained(stage)
    return "transformers"


def _move_in(staged: list[tuple[Path, Path]]) -> None:
    """Rename what was written aside, in order: all of it is on the disk before anything earlier goes."""
    for part, _ in staged:
        for path in part.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
    for part, place in staged:
        if place.exists():
            shutil.rmtree(place)
        part.rename(place)


def _save_adapter(stage: Path, model: PeftModel, base_folder: Path | None, source: EncoderSource) -> None:
    """Save the update; its config names a base that can be found again."""
    settings = model.peft_config["default"]
    settings.base_model_name_or_path = str(base_folder) if base_folder else source.location
    settings.revision = source.revision
    settings.inference_mode = True
    # "auto" would ask the Hub whether the vocabulary grew; it never does here.
    with quiet_loading():
        model.save_pretrained(stage, save_embedding_layers=False)
    (stage / "README.md").unlink(missing_ok=True)


def _save_base(folder: Path, model: PeftModel) -> None:
    """Save the bare encoder under an adapter whose encoder was itself an artefact, without that artefact's head."""
    plain = model.get_base_model()
    encoder = getattr(plain, plain.base_model_prefix)
    prefix = f"{plain.base_model_prefix}."
    adapted = tuple(f"{name}." for name, module in plain.named_modules() if isinstance(module, BaseTunerLayer))
    state = {
        name.removeprefix(prefix).replace(".base_layer.", ".").replace(".original_module.", "."): value
        for name, value in plain.state_dict().items()
        if name.startswith(prefix)
        and ".modules_to_save." not in name
        and (".base_layer." in name or not name.startswith(adapted))
    }
    with quiet_loading():
        encoder.save_pretrained(folder, state_dict=state)


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
    # Unlike Path's own, these raise no error for a name that is too long for the file system.
    if os.path.isdir(folder):
        for candidate in (folder, folder / "model"):
            if any((candidate / name).is_file() for name in ("config.json", ADAPTER_FILE, WEIGHTS_FILE)):
                return candidate
        raise ArtifactError(
            f"{path}: holds no artefact (config.json or {ADAPTER_FILE}). Name the model/ folder of a run."
        )
    if os.path.exists(folder):
        raise ArtifactError(f"{path}: is a file. Name the model/ folder of a run.")
    name = str(path)
    if "/" not in name or not is_hub_id(name):
        raise ArtifactError(f"{path}: no such folder. Name the model/ folder of a run, or a Hub id such as owner/name.")
    hint = "HF_HUB_OFFLINE is set" if hub_constants.HF_HUB_OFFLINE else "check the name, your network and login"
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=HUB_FILES))
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ArtifactError(
            f"{path}: is neither a folder here nor to be had from the Hub ({hint}). Name the model/ folder of a run."
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
    metadata = _read_metadata(folder)
    is_adapter = (folder / ADAPTER_FILE).is_file()
    if is_adapter and not metadata:
        raise ArtifactError(f"{folder}: an adapter without {ARTIFACT_FILE} does not say its labels. Load it with peft.")
    is_own = metadata.get("loader") == "nlp_transfer"
    stem = "adapter_model" if is_adapter else WEIGHTS_FILE.partition(".")[0] if is_own else "model"
    if not any((folder / f"{stem}{end}").is_file() for end in (".safetensors", ".safetensors.index.json")):
        raise ArtifactError(
            f"{folder}: holds no {stem}.safetensors. Pickled weights are refused; convert them where you trust them."
        )
    try:
        with quiet_loading():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
            load = _load_adapter if is_adapter else load_own if is_own else _load_plain
            model: Any = load(folder, metadata, trust_remote_code=trust_remote_code)
    except LOADING_ERRORS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".:")
        raise ArtifactError(
            f"{folder}: cannot be loaded, it may be damaged: {reason}. Copy it again, or train it again."
        ) from error
    check_vocabulary(tokenizer, model.config, where=str(folder))
    labels = _read_labels(folder, model, metadata)
    return LoadedArtifact(model.float().eval(), tokenizer, labels, metadata, folder)


def _load_plain(folder: Path, _: Mapping[str, Any], *, trust_remote_code: bool) -> nn.Module:
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


def _load_adapter(folder: Path, metadata: Mapping[str, Any], *, trust_remote_code: bool) -> nn.Module:
    """Load a peft classifier on its base."""
    names = metadata["labels"]["names"]
    base = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8"))["base_model_name_or_path"]
    try:
        resolve_encoder(EncoderConfig.model_validate({"name": base}))
    except EncoderError as error:
        raise EncoderError(f"{folder}: the adapter's base is missing: {error}") from error
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


def _read_metadata(folder: Path) -> dict[str, Any]:
    """Read ``nlp_transfer.json``; empty where there is none."""
    path = folder / ARTIFACT_FILE
    if not path.is_file():
        return {}
    try:
        metadata: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = metadata["format"]
        LabelSpace(metadata["labels"]["kind"], tuple(metadata["labels"]["names"]))
        if metadata["labels"]["kind"] not in PROBLEM_TYPES:
            raise ValueError(f"unknown kind {metadata['labels']['kind']!r}")
        reading = {key: value for key, value in metadata.get("reading", {}).items() if key != "is_pair"}
        DataConfig.model_validate(reading)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ArtifactError(
            f"{path}: cannot be read ({reason}). Copy the artefact again, or train it again."
        ) from error
    if version != ARTIFACT_VERSION:
        raise ArtifactError(
            f"{path}: has format {version}, this version reads {ARTIFACT_VERSION}. Upgrade nlp_transfer."
        )
    return metadata


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
