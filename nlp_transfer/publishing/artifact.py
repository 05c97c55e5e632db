"""The ``model/`` folder, in a format that plain transformers or peft loads."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from nlp_transfer.contracts import LabelSpace
from nlp_transfer.data.encode import limit_length
from nlp_transfer.errors import OutputError
from nlp_transfer.files import copy_folder, explain_writing, settle_modes, write_atomically
from nlp_transfer.models.artifacts import ARTIFACT_VERSION, LoadedArtifact, find_artifact, load_artifact
from nlp_transfer.models.custom import ENCODER_FOLDER, WEIGHTS_FILE, CustomClassifier
from nlp_transfer.models.digests import DIGESTS, FileDigests, hash_files, hash_folder, list_encoder_files, seal_record
from nlp_transfer.models.encoder import quiet_loading
from nlp_transfer.models.merge import is_adapter, merge_adapter
from nlp_transfer.models.resolve import ARTIFACT_FILE, EncoderSource

if TYPE_CHECKING:
    from peft import PeftModel

__all__ = [
    "LoadedArtifact",
    "amend_artifact",
    "copy_artifact",
    "describe_architecture",
    "find_artifact",
    "keeps_encoder",
    "load_artifact",
    "save_artifact",
    "stage_custom",
    "write_atomically",
]


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
    """Write an artefact; a failure leaves no partial files and changes no earlier artefact.

    Args:
        folder: The ``model/`` folder to create.
        model: A transformers classifier, a classifier wrapped by peft, or a custom one; its weights are float32.
        tokenizer: Saved beside the model.
        labels: The label contract.
        source: The encoder the model started from.
        merge: Merge a peft update into the encoder and save a plain folder; the model in memory changes.
        metadata: Further JSON for ``nlp_transfer.json``: recipe, reading settings, versions.

    Returns:
        The library that loads the folder: ``transformers``, ``peft`` or ``nlp_transfer``.

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
        limit_length(tokenizer, getattr(model, "config", None), reserved=_count_prompts(model)).save_pretrained(stage)
        record = {
            "format": ARTIFACT_VERSION,
            "loader": kind,
            "labels": {"kind": labels.kind, "names": list(labels.names)},
            "encoder": {"name": source.name, "hub_id": source.hub_id, "revision": source.revision},
            **({"architecture": describe_architecture(model, source)} if isinstance(model, CustomClassifier) else {}),
            **metadata,
        }
        record = seal_record(
            record, files=hash_folder(stage), encoder=_hash_encoder(kind, base_stage, model, source) or None
        )
        (stage / ARTIFACT_FILE).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        _move_in([(part, place) for part, place in ((base_stage, base_folder), (stage, folder)) if part.exists()])
    except (OSError, SafetensorError) as error:
        way_out = "Free space and run the same command again: the run continues from the last checkpoint."
        raise explain_writing(folder, error, what="the model could not be saved", way_out=way_out) from error
    finally:
        for part in (stage, base_stage):
            shutil.rmtree(part, ignore_errors=True)
    return kind


def amend_artifact(folder: Path, changes: Mapping[str, object] | None = None, *, added: Sequence[str] = ()) -> None:
    """Write further entries into an artefact's ``nlp_transfer.json``, atomically.

    Args:
        folder: The ``model/`` folder.
        changes: Entry to value; replaces entries of the same name.
        added: Files that were added to the folder after it was saved, and that some predictions depend on.

    Raises:
        StorageError: The disk is full or failing.
    """
    place = folder / ARTIFACT_FILE
    record = {**json.loads(place.read_text(encoding="utf-8")), **(changes or {})}
    if DIGESTS in record:
        later = {**record[DIGESTS].get("added", {}), **hash_files({name: folder / name for name in added})}
        record = seal_record(record, added=later or None)
    write_atomically(place, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _hash_encoder(kind: str, base_stage: Path, model: nn.Module, source: EncoderSource) -> FileDigests:
    """Take the digests of an encoder that is outside the folder; empty where the folder holds the encoder."""
    if base_stage.exists():
        return hash_folder(base_stage)
    is_inside = kind == "transformers" or (isinstance(model, CustomClassifier) and keeps_encoder(model, source))
    return {} if is_inside else hash_files(list_encoder_files(source.location, source.revision))


def _count_prompts(model: nn.Module) -> int:
    """Count the positions that prompt vectors take in front of a text."""
    settings = getattr(model, "peft_config", {}).get("default")
    return int(getattr(settings, "num_virtual_tokens", None) or 0)


def _stage_model(
    stage: Path, base_stage: Path, base_folder: Path, model: nn.Module, *, source: EncoderSource, merge: bool
) -> str:
    """Write the weights, and an adapter's base if needed, into staging folders; name the library that loads them."""
    if isinstance(model, CustomClassifier):
        stage_custom(stage, model, source)
        return "nlp_transfer"
    if is_adapter(model) and not merge:
        if source.is_artifact:
            _save_base(base_stage, model)
        _save_adapter(stage, model, base_folder if source.is_artifact else None, source)
        return "peft"
    plain = merge_adapter(model) if is_adapter(model) else model
    assert isinstance(plain, PreTrainedModel)
    with quiet_loading():
        plain.save_pretrained(stage)
    return "transformers"


def _move_in(staged: list[tuple[Path, Path]]) -> None:
    """Rename the staged folders, in order: all their files are synced to disk before any earlier folder is removed."""
    for part, _ in staged:
        settle_modes(part)
        for path in part.rglob("*"):
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
    for part, place in staged:
        if place.exists():
            shutil.rmtree(place)
        part.rename(place)


def _save_adapter(stage: Path, model: "PeftModel", base_folder: Path | None, source: EncoderSource) -> None:
    """Save the update; its config names the location of the base."""
    settings = model.peft_config["default"]
    settings.base_model_name_or_path = str(base_folder) if base_folder else source.location
    settings.revision = source.revision
    settings.inference_mode = True
    # "auto" would ask the Hub whether the vocabulary grew; it never does here.
    with quiet_loading():
        model.save_pretrained(stage, save_embedding_layers=False)
    (stage / "README.md").unlink(missing_ok=True)


def _save_base(folder: Path, model: "PeftModel") -> None:
    """Save the bare encoder under an adapter whose encoder was itself an artefact, without that artefact's head."""
    from peft.tuners.tuners_utils import BaseTunerLayer

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


def copy_artifact(source: Path, target: Path) -> Path:
    """Copy an artefact to another folder; a failure leaves no partial copy.

    Args:
        source: The artefact's folder.
        target: Must not exist, or be empty.

    Returns:
        The folder copied to.

    Raises:
        OutputError: The target is not empty, or is not writable.
        StorageError: The disk is full or failing.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputError(f"{target}: is not empty. Name a new folder; nothing there was touched.")
    # A folder that is there may be a mount or the current one: it is filled, not replaced.
    is_there = target.exists()
    stage = target / ".writing" if is_there else target.with_name(f".{target.name}.writing")
    try:
        shutil.rmtree(stage, ignore_errors=True)
        copy_folder(source, stage)
        if is_there:
            for path in stage.iterdir():
                path.rename(target / path.name)
            stage.rmdir()
        else:
            stage.rename(target)
    except OSError as error:
        raise explain_writing(target, error, way_out="Free space and try again.") from error
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return target


def keeps_encoder(model: CustomClassifier, source: EncoderSource) -> bool:
    """Whether an artefact holds its encoder: only where the encoder was trained, or was itself an artefact."""
    return model.saves_encoder or source.is_artifact


def stage_custom(stage: Path, model: CustomClassifier, source: EncoderSource) -> None:
    """Write the weights of a custom classifier into a folder, and its encoder where `keeps_encoder` says so.

    Args:
        stage: An empty folder.
        model: The classifier.
        source: Where its encoder came from.
    """
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in model.collect_custom().items()}
    # A classifier without weights of its own gets an empty file, so that a missing file always means damage.
    save_file(tensors, stage / WEIGHTS_FILE, metadata={"format": "pt"})
    if keeps_encoder(model, source):
        with quiet_loading():
            model.encoder.save_pretrained(stage / ENCODER_FOLDER)


def describe_architecture(model: CustomClassifier, source: EncoderSource) -> dict[str, Any]:
    """Describe how to rebuild the classifier.

    Args:
        model: The classifier.
        source: Where its encoder came from.

    Returns:
        JSON: ``kind``, ``settings`` and ``encoder``, whose ``location`` is None where the encoder is in the folder.
    """
    is_inside = keeps_encoder(model, source)
    encoder = {
        "location": None if is_inside else source.location,
        "revision": None if is_inside else source.revision,
        "hub_id": source.hub_id,
    }
    return {"kind": model.kind, "settings": model.settings, "encoder": encoder}
