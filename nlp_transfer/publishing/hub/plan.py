"""The plan of a push to the Hub: which files of an artefact are sent, how they are rewritten, and what is refused."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from nlp_transfer.errors import ArtifactError, name_cause
from nlp_transfer.models.custom import ENCODER_FOLDER
from nlp_transfer.models.digests import DIGESTS, check_files, open_record, require_format, require_record, seal_record
from nlp_transfer.models.resolve import ADAPTER_FILE, ARTIFACT_FILE, is_hub_id
from nlp_transfer.publishing.card import write_hub_card
from nlp_transfer.publishing.summary import find_section, name_place

__all__ = ["Base", "PlannedFile", "UploadPlan", "find_base", "is_ours", "plan_upload"]

CARD = "README.md"
WEIGHTS = ".safetensors"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "*.model"),
)
MODEL_FILES = ("config.json", "generation_config.json", "*.safetensors", "*.safetensors.index.json")
ROOT_FILES = (CARD, ARTIFACT_FILE, ADAPTER_FILE, *MODEL_FILES, *TOKENIZER_FILES)
"""Name patterns of files that may be sent; all other files of a folder are left out."""

SETTINGS = ("config.json", "generation_config.json", ADAPTER_FILE, ARTIFACT_FILE, "tokenizer_config.json", CARD)
"""Text files that people or programs write, and that could contain a secret."""

UNSAFE_ENDINGS = (
    *(".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".keras", ".msgpack"),
    *(".py", ".pyc", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".ps1", ".zip", ".tar", ".gz", ".7z"),
)
"""Files that can run code when they are loaded or opened, or archives that can contain such files."""

CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code")
"""Settings that make the user who loads the folder run code from it."""

TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")
SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|API_KEY|ACCESS_KEY)$")
SHORTEST_SECRET = 12  # chosen: a shorter value of a variable may be an ordinary word


@dataclass(frozen=True)
class Base:
    """The encoder of an artefact that does not contain it; it is loaded from the Hub.

    Attributes:
        hub_id: Hub id of the encoder.
        revision: Branch, tag or commit; None if unknown.
        weights: The local file of weights that training started from, if it exists as a single file.
    """

    hub_id: str
    revision: str | None
    weights: Path | None


@dataclass(frozen=True)
class PlannedFile:
    """One file to send.

    Attributes:
        path: Its name in the repository.
        content: Its local path, or its bytes if it was rewritten.
        size: Size in bytes, stored here because a merged file is deleted after the push.
    """

    path: str
    content: Path | bytes
    size: int


@dataclass(frozen=True)
class UploadPlan:
    """The files to send, and the files that are left out.

    Attributes:
        repo_id: OWNER/NAME.
        loader: The library that loads the repository: ``transformers``, ``peft`` or ``nlp_transfer``.
        files: Files to send, sorted by name.
        left: Files and folders of the artefact that are not sent.
        base: The encoder on the Hub, or None if the artefact contains its encoder.
    """

    repo_id: str
    loader: str
    files: tuple[PlannedFile, ...]
    left: tuple[str, ...]
    base: Base | None


def is_ours(path: str) -> bool:
    """Whether a file of this name in a repository belongs to a model that a push replaces.

    Example:
        >>> is_ours("encoder/config.json"), is_ours("docs/config.json"), is_ours("model.safetensors")
        (True, False, True)
    """
    folder, _, name = path.rpartition("/")
    patterns = {"": ROOT_FILES, ENCODER_FOLDER: MODEL_FILES}.get(folder, ())
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def find_base(folder: Path) -> Base | None:
    """Find the encoder that an artefact names but does not contain.

    Args:
        folder: The ``model/`` folder.

    Returns:
        The encoder on the Hub, or None if the folder contains its encoder.

    Raises:
        ArtifactError: The encoder is on this machine only, so nobody else could load the artefact.
    """
    metadata = _read_record(folder / ARTIFACT_FILE)
    if (folder / ADAPTER_FILE).is_file():
        settings = _read_json(folder / ADAPTER_FILE)
        place, revision = settings.get("base_model_name_or_path"), settings.get("revision")
        hub_id = find_section(metadata, "encoder").get("hub_id")
    else:
        encoder = find_section(metadata, "architecture", "encoder")
        place, revision, hub_id = encoder.get("location"), encoder.get("revision"), encoder.get("hub_id")
        if place is None:
            return None
    place = str(place or "")
    is_local = os.path.exists(Path(place).expanduser()) or not is_hub_id(place)
    found = hub_id if is_local else place
    if not found or "/" not in str(found) or not is_hub_id(str(found)):
        raise ArtifactError(
            f"{folder}: its encoder {name_place(place) or 'without a name'} is on this machine only, so nobody could "
            "load it. Push the encoder first and train from its Hub id, or push the merged model: --merged."
        )
    weights = Path(place).expanduser() / "model.safetensors" if is_local else None
    if weights is None:
        cached = try_to_load_from_cache(str(found), "model.safetensors", revision=revision)
        weights = Path(cached) if isinstance(cached, str) else None
    return Base(str(found), revision or None, weights if weights is not None and weights.is_file() else None)


def plan_upload(
    folder: Path, repo_id: str, *, base: Base | None, report: Mapping[str, Any] | None = None
) -> UploadPlan:
    """List exactly the files to send to the Hub, each checked; nothing is sent.

    Args:
        folder: The ``model/`` folder.
        repo_id: OWNER/NAME.
        base: The encoder beside it, as ``find_base`` and the Hub say.
        report: What ``report.json`` holds, for the card; the folder's own card is kept where it is absent.

    Returns:
        The plan.

    Raises:
        ArtifactError: A file is unsafe, damaged, leads out of the folder, or holds a secret.
    """
    goes: list[tuple[Path, str]] = []
    left: list[tuple[Path, str]] = []
    for path, name in _list_entries(folder):
        if path.name.lower().endswith(UNSAFE_ENDINGS):
            raise ArtifactError(
                f"{path}: can run code when it is loaded, or can contain such a file. A push takes safetensors and "
                "JSON only; move this file out of the folder."
            )
        (goes if is_ours(name) and path.is_file() else left).append((path, name))
    metadata = _read_record(folder / ARTIFACT_FILE)
    if not any(name.endswith(".safetensors") for _, name in goes):
        _check_digests(folder, metadata)  # its error names the missing file
        raise ArtifactError(f"{folder}: holds no safetensors, so there is nothing to push. Name the model/ folder.")
    if (folder / ADAPTER_FILE).is_file():
        loader = "peft"
    else:
        loader = "nlp_transfer" if metadata.get("loader") == "nlp_transfer" else "transformers"
    _check_weights(goes)
    files = [_plan_file(name, _rewrite(path, name, base)) for path, name in goes if name != CARD]
    files = [_renew_digests(file, files, base) if file.path == ARTIFACT_FILE else file for file in files]
    kind, names = _read_contract(folder, metadata)
    card = write_hub_card(
        _read_card(folder / CARD),
        metadata,
        report,
        repo_id=repo_id,
        format=loader,  # type: ignore[arg-type]
        kind=kind,
        labels=names,
    )
    files.append(_plan_file(CARD, card.encode("utf-8", errors="backslashreplace")))
    for file in files:
        _refuse_secrets(folder, file)
    _check_digests(folder, metadata)
    return UploadPlan(
        repo_id, loader, tuple(sorted(files, key=lambda file: file.path)), tuple(n for _, n in left), base
    )


def _plan_file(name: str, content: Path | bytes) -> PlannedFile:
    """Make a planned file with its size."""
    return PlannedFile(name, content, len(content) if isinstance(content, bytes) else content.stat().st_size)


def _list_entries(folder: Path) -> Iterator[tuple[Path, str]]:
    """List the entries of the folder and of its encoder's folder, each with its name, and check links."""
    # In the Hub's cache, files are links into a folder beside the snapshots.
    roots = [folder.resolve()]
    if folder.parent.name == "snapshots":
        roots.append((folder.parent.parent / "blobs").resolve())
    for path in sorted(folder.iterdir()):
        inner = sorted(path.iterdir()) if path.name == ENCODER_FOLDER and path.is_dir() else [path]
        for each in inner:
            if not any(each.resolve().is_relative_to(root) for root in roots):
                raise ArtifactError(f"{each}: is a link to a file outside the folder. Replace the link by the file.")
            yield each, each.relative_to(folder).as_posix()


def _check_weights(files: list[tuple[Path, str]]) -> None:
    """Open every file of weights as safetensors, and check that the files named in an index exist."""
    names = {name for _, name in files}
    for path, name in files:
        if name.endswith(".safetensors"):
            try:
                with safe_open(path, framework="np") as tensors:
                    list(tensors.keys())
            except (SafetensorError, OSError) as error:
                raise ArtifactError(
                    f"{path}: is not a safetensors file: {name_cause(error)}. Copy the artefact again."
                ) from error
        elif name.endswith(".index.json"):
            place = name.rpartition("/")[0]
            shards = set(map(str, find_section(_read_json(path), "weight_map").values()))
            lost = sorted(shard for shard in shards if f"{place}/{shard}".lstrip("/") not in names)
            if lost or not shards:
                raise ArtifactError(f"{path}: names {lost[:1] or 'no files'}, which the folder lacks. Copy it again.")


def _check_digests(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Refuse to publish files that were changed after they were saved."""
    _, digests = open_record(metadata, folder / ARTIFACT_FILE)
    for group in ("files", "added"):
        expected = digests.get(group, {})
        check_files({name: folder / name for name in expected}, expected, record=folder / ARTIFACT_FILE)


def _renew_digests(record: PlannedFile, files: Sequence[PlannedFile], base: Base | None) -> PlannedFile:
    """Update the digests in the record to the files that are sent: some were rewritten, some are left out."""
    content = _read_json(record.content) if isinstance(record.content, Path) else json.loads(record.content)
    if DIGESTS not in content:
        return record
    held = content[DIGESTS]
    going = {file.path: file for file in files}
    inside, added = (
        {path: _hash_planned(going[path], entry) for path, entry in held.get(name, {}).items() if path in going}
        for name in ("files", "added")
    )
    # Other files of the encoder may differ on the Hub; its weights were compared with the Hub's.
    encoder = {path: entry for path, entry in held.get("encoder", {}).items() if base is None or path.endswith(WEIGHTS)}
    sealed = seal_record(
        content,
        files=inside,
        encoder=encoder if "encoder" in held else None,
        added=added if "added" in held else None,
    )
    if sealed == content:
        return record
    text = json.dumps(sealed, indent=2, ensure_ascii=False) + "\n"
    return _plan_file(record.path, text.encode("utf-8", errors="backslashreplace"))


def _hash_planned(file: PlannedFile, entry: Mapping[str, Any]) -> Mapping[str, Any]:
    """Give the digest of a file to send: its recorded digest, or the digest of its rewritten bytes."""
    if isinstance(file.content, Path):
        return entry
    return {"size": file.size, "sha256": hashlib.sha256(file.content).hexdigest()}


def _read_card(path: Path) -> str | None:
    """Read the card, if there is one."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path}: cannot be read: {name_cause(error)}. Repair the card, or remove it: a push makes a new one."
        ) from error


def _rewrite(path: Path, name: str, base: Base | None) -> Path | bytes:
    """Remove local paths from a settings file, and write the Hub id of the base."""
    short = path.name
    if short not in SETTINGS:
        return path
    content = _read_json(path)
    for key in CODE_KEYS:
        if content.get(key):
            raise ArtifactError(
                f"{path}: {key}: makes the user who loads the model run code from a repository. Remove the key, or "
                "publish the code yourself."
            )
    changed = dict(content)
    if name == ADAPTER_FILE and base is not None:
        changed |= {"base_model_name_or_path": base.hub_id, "revision": base.revision}
    if name == ARTIFACT_FILE:
        encoder = find_section(content, "encoder")
        if encoder:
            known = encoder.get("hub_id") or name_place(str(encoder.get("name") or ""))
            changed["encoder"] = encoder | {"name": known}
        if base is not None and "architecture" in content:
            beside = {"location": base.hub_id, "revision": base.revision, "hub_id": base.hub_id}
            changed["architecture"] = find_section(content, "architecture") | {"encoder": beside}
    for key in ("_name_or_path", "name_or_path"):
        if isinstance(content.get(key), str):
            changed[key] = name_place(content[key])
    if changed == content:
        return path
    return (json.dumps(changed, indent=2, ensure_ascii=False) + "\n").encode("utf-8", errors="backslashreplace")


def _refuse_secrets(folder: Path, file: PlannedFile) -> None:
    """Refuse a settings file that contains a token, or the value of an environment variable named like a secret."""
    if file.path.rpartition("/")[2] not in SETTINGS:
        return
    content = file.content if isinstance(file.content, bytes) else file.content.read_bytes()
    text = content.decode("utf-8", errors="replace")
    found = "a token of the Hub" if TOKEN.search(text) else None
    for variable, value in os.environ.items():
        if SECRET_NAME.search(variable) and len(value) >= SHORTEST_SECRET and value in text:
            found = f"the value of {variable}"
    if found:
        raise ArtifactError(f"{folder / file.path}: holds {found}, which would be published. Take it out.")


def _read_contract(folder: Path, metadata: Mapping[str, Any]) -> tuple[Any, tuple[str, ...]]:
    """Read the kind of task and the label names, from the artefact's record or a plain config."""
    labels = find_section(metadata, "labels")
    if labels:
        return labels.get("kind", "classification"), tuple(map(str, labels.get("names") or ()))
    names = find_section(_read_json(folder / "config.json"), "id2label")
    return "classification", tuple(str(names[key]) for key in sorted(names, key=int))


def _read_record(path: Path) -> dict[str, Any]:
    """Read ``nlp_transfer.json``; empty for a folder that another tool saved."""
    require_record(path)
    if not path.exists():
        return {}
    content = _read_json(path)
    require_format(content, path)
    return content


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path}: cannot be read: {name_cause(error)}. Copy the artefact again, or train it again."
        ) from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: expected an object, got {type(content).__name__}. Copy the artefact again.")
    return content
