"""What of an artefact goes to the Hub: exactly which files, what is rewritten in them, and what is refused."""

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
"""What may go: nothing else of a folder does, however it came there."""

SETTINGS = ("config.json", "generation_config.json", ADAPTER_FILE, ARTIFACT_FILE, "tokenizer_config.json", CARD)
"""Files that people or programs wrote by hand, where a secret could stand."""

UNSAFE_ENDINGS = (
    *(".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz", ".h5", ".keras", ".msgpack"),
    *(".py", ".pyc", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".ps1", ".zip", ".tar", ".gz", ".7z"),
)
"""Files that can run code when they are loaded or opened, or hide others that can."""

CODE_KEYS = ("auto_map", "custom_pipelines", "trust_remote_code")
"""Settings that ask whoever loads the folder to run code from it."""

TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{30,}\b")
SECRET_NAME = re.compile(r"(TOKEN|SECRET|PASSWORD|API_KEY|ACCESS_KEY)$")
SHORTEST_SECRET = 12  # chosen: a shorter value of a variable may be an ordinary word


@dataclass(frozen=True)
class Base:
    """The encoder that an artefact does not hold and is loaded beside it.

    Attributes:
        hub_id: Its Hub id.
        revision: Branch, tag or commit; None where nothing says.
        weights: The very file that was trained on, where it is here and in one piece.
    """

    hub_id: str
    revision: str | None
    weights: Path | None


@dataclass(frozen=True)
class PlannedFile:
    """One file that goes.

    Attributes:
        path: Its name in the repository.
        content: Where it lies, or its bytes where it was rewritten.
        size: Bytes, counted once: what was merged for a push is gone after it.
    """

    path: str
    content: Path | bytes
    size: int


@dataclass(frozen=True)
class UploadPlan:
    """Everything that goes, and what does not.

    Attributes:
        repo_id: OWNER/NAME.
        loader: ``transformers``, ``peft`` or ``nlp_transfer``: what loads the repository.
        files: In order of their names.
        left: Files and folders of the artefact that stay here.
        base: The encoder beside it, or None where the artefact is whole.
    """

    repo_id: str
    loader: str
    files: tuple[PlannedFile, ...]
    left: tuple[str, ...]
    base: Base | None


def is_ours(path: str) -> bool:
    """Whether a file of that name in a repository is part of a model, as far as a push is concerned.

    Example:
        >>> is_ours("encoder/config.json"), is_ours("docs/config.json"), is_ours("model.safetensors")
        (True, False, True)
    """
    folder, _, name = path.rpartition("/")
    patterns = {"": ROOT_FILES, ENCODER_FOLDER: MODEL_FILES}.get(folder, ())
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def find_base(folder: Path) -> Base | None:
    """Find the encoder that an artefact names and does not hold.

    Args:
        folder: The ``model/`` folder.

    Returns:
        The encoder's place on the Hub, or None where the folder holds everything.

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
    """List exactly what goes to the Hub, checked file by file; nothing is sent.

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
                f"{path}: can run code when it is loaded, or hides what can. A push takes safetensors and JSON only; "
                "move it out of the folder."
            )
        (goes if is_ours(name) and path.is_file() else left).append((path, name))
    metadata = _read_record(folder / ARTIFACT_FILE)
    if not any(name.endswith(".safetensors") for _, name in goes):
        _check_digests(folder, metadata)  # which names what is missing
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
    """A file with its size."""
    return PlannedFile(name, content, len(content) if isinstance(content, bytes) else content.stat().st_size)


def _list_entries(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files of the folder and of its encoder, and whatever other folders it has, each with its name; links checked."""
    # In the Hub's own cache files are links into a folder beside the snapshots.
    roots = [folder.resolve()]
    if folder.parent.name == "snapshots":
        roots.append((folder.parent.parent / "blobs").resolve())
    for path in sorted(folder.iterdir()):
        inner = sorted(path.iterdir()) if path.name == ENCODER_FOLDER and path.is_dir() else [path]
        for each in inner:
            if not any(each.resolve().is_relative_to(root) for root in roots):
                raise ArtifactError(f"{each}: is a link that leads out of the folder. Put the file itself there.")
            yield each, each.relative_to(folder).as_posix()


def _check_weights(files: list[tuple[Path, str]]) -> None:
    """Open every file of weights as safetensors, and hold what an index names against what is there."""
    names = {name for _, name in files}
    for path, name in files:
        if name.endswith(".safetensors"):
            try:
                with safe_open(path, framework="np") as tensors:
                    list(tensors.keys())
            except (SafetensorError, OSError) as error:
                raise ArtifactError(
                    f"{path}: is no safetensors file: {name_cause(error)}. Copy the artefact again."
                ) from error
        elif name.endswith(".index.json"):
            place = name.rpartition("/")[0]
            shards = set(map(str, find_section(_read_json(path), "weight_map").values()))
            lost = sorted(shard for shard in shards if f"{place}/{shard}".lstrip("/") not in names)
            if lost or not shards:
                raise ArtifactError(f"{path}: names {lost[:1] or 'no files'}, which the folder lacks. Copy it again.")


def _check_digests(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Refuse to publish what is not what was saved."""
    _, digests = open_record(metadata, folder / ARTIFACT_FILE)
    for group in ("files", "added"):
        expected = digests.get(group, {})
        check_files({name: folder / name for name in expected}, expected, record=folder / ARTIFACT_FILE)


def _renew_digests(record: PlannedFile, files: Sequence[PlannedFile], base: Base | None) -> PlannedFile:
    """Give the record that goes the digests of what goes with it: some of it was rewritten, some stays here."""
    content = _read_json(record.content) if isinstance(record.content, Path) else json.loads(record.content)
    if DIGESTS not in content:
        return record
    held = content[DIGESTS]
    going = {file.path: file for file in files}
    inside, added = (
        {path: _hash_planned(going[path], entry) for path, entry in held.get(name, {}).items() if path in going}
        for name in ("files", "added")
    )
    # What is written around the weights may differ on the Hub; the weights were held against those there.
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
    """The digest of a file that goes: the one it has, or that of its new bytes."""
    if isinstance(file.content, Path):
        return entry
    return {"size": file.size, "sha256": hashlib.sha256(file.content).hexdigest()}


def _read_card(path: Path) -> str | None:
    """The card, where there is one."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ArtifactError(
            f"{path}: cannot be read: {name_cause(error)}. Mend it, or remove it: a new one is made."
        ) from error


def _rewrite(path: Path, name: str, base: Base | None) -> Path | bytes:
    """Take this machine's places out of a file of settings, and put the base's place on the Hub in."""
    short = path.name
    if short not in SETTINGS:
        return path
    content = _read_json(path)
    for key in CODE_KEYS:
        if content.get(key):
            raise ArtifactError(
                f"{path}: {key}: asks whoever loads the model to run code from a repository. Take the key out, or "
                "publish the code where you vouch for it."
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
    """Refuse a file of settings that holds a token, or the value of a variable that is named like a secret."""
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
    """Kind of task and label names, of the artefact or of a plain config."""
    labels = find_section(metadata, "labels")
    if labels:
        return labels.get("kind", "classification"), tuple(map(str, labels.get("names") or ()))
    names = find_section(_read_json(folder / "config.json"), "id2label")
    return "classification", tuple(str(names[key]) for key in sorted(names, key=int))


def _read_record(path: Path) -> dict[str, Any]:
    """Read ``nlp_transfer.json``; empty for what another tool saved."""
    require_record(path)
    if not path.exists():
        return {}
    content = _read_json(path)
    require_format(content, path)
    return content


def _read_json(path: Path) -> dict[str, Any]:
    """Read an object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path}: cannot be read: {name_cause(error)}. Copy the artefact again, or train it again."
        ) from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path}: expected an object, got {type(content).__name__}. Copy the artefact again.")
    return content
