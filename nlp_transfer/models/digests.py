"""Digests of the files that answers depend on, kept in a JSON record that also knows its own.

A record (``nlp_transfer.json``, ``report.json`` and their like) has an entry ``digests``: under ``files`` the size and
the SHA-256 of each file beside it, under ``encoder`` those of an encoder that lies elsewhere, under ``added`` those of
files that came later and that not every use reads, under ``record`` the SHA-256 of the record itself, taken of its
content and not of its bytes, so that white space is free. Without the entry nothing is checked.
"""

import functools
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from nlp_transfer.errors import ArtifactError, DamageError

__all__ = [
    "DIGESTS",
    "FileDigests",
    "check_added",
    "check_artifact",
    "check_base",
    "check_encoder",
    "check_files",
    "check_meanwhile",
    "hash_files",
    "hash_folder",
    "list_encoder_files",
    "open_record",
    "require_format",
    "require_record",
    "seal_record",
]

DIGESTS = "digests"
RECORD = "record"
GROUPS = ("files", "encoder", "added")

FileDigests = Mapping[str, Mapping[str, Any]]
"""Name of a file, with ``/`` between folders, to its ``size`` in bytes and its ``sha256``."""

UNCHECKED = ("README.md", "nlp_transfer.json")
"""Files of an artefact's folder without an entry: the card is there to be edited, the record has its own digest."""

LARGE_BYTES = 32 * 2**20
"""Weights above this are hashed while they are loaded; chosen: some 20 ms of hashing."""

POINTER = b"version https://git-lfs.github.com/"
AGAIN = "Copy it again, or make it again"


def hash_files(paths: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Take the digests of files.

    Args:
        paths: Name in the record to place.

    Returns:
        Entries as `seal_record` takes them, in the order of their names.

    Raises:
        OSError: One cannot be read.
    """
    return {name: {"size": path.stat().st_size, "sha256": _hash(path)} for name, path in sorted(paths.items())}


def hash_folder(folder: Path, leave: Iterable[str] = UNCHECKED) -> dict[str, dict[str, Any]]:
    """Take the digests of every file under a folder, those of ``leave`` at its top left out.

    Raises:
        OSError: One cannot be read.
    """
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return hash_files({name: path for name, path in found.items() if name not in set(leave)})


def list_encoder_files(location: str | Path, revision: str | None = None) -> dict[str, Path]:
    """Find configuration and weights of an encoder that lies elsewhere.

    Args:
        location: A folder, or a Hub id, of which the files in the cache are listed.
        revision: Of a Hub id.

    Returns:
        Name to place; empty where nothing is there.
    """
    from huggingface_hub import try_to_load_from_cache

    folder = Path(location)
    if not folder.is_dir():
        cached = try_to_load_from_cache(str(location), "config.json", revision=revision)
        if not isinstance(cached, str):
            return {}
        folder = Path(cached).parent
    found = [folder / "config.json", *folder.glob("model*.safetensors"), folder / "model.safetensors.index.json"]
    return {path.name: path for path in found if path.is_file()}


def _hash(path: Path) -> str:
    """Hash a file without reading it into memory at once."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal_record(
    record: Mapping[str, Any],
    *,
    files: FileDigests | None = None,
    encoder: FileDigests | None = None,
    added: FileDigests | None = None,
) -> dict[str, Any]:
    """Give a record the digests of files, and its own.

    Args:
        record: JSON; digests that it has are replaced.
        files: Of files beside it; what it says of them already stays where absent.
        encoder: Of an encoder elsewhere, likewise.
        added: Of files that came later, likewise.

    Returns:
        The record with its entry ``digests``, which comes last.

    Example:
        >>> sealed = seal_record({"labels": ["bad", "good"]})
        >>> open_record(sealed, Path("nlp_transfer.json"))
        ({'labels': ['bad', 'good']}, {})
        >>> open_record({**sealed, "labels": ["good", "bad"]}, Path("nlp_transfer.json"))
        Traceback (most recent call last):
        nlp_transfer.errors.DamageError: nlp_transfer.json: is damaged, or was changed by hand since it was saved...
    """
    held = record.get(DIGESTS)
    kept: dict[str, Any] = {name: held[name] for name in GROUPS if name in held} if isinstance(held, Mapping) else {}
    given = zip(GROUPS, (files, encoder, added), strict=True)
    kept |= {name: dict(group) for name, group in given if group is not None}
    content = {key: value for key, value in record.items() if key != DIGESTS}
    return {**content, DIGESTS: {**kept, RECORD: _hash_record(content, kept)}}


def open_record(record: Mapping[str, Any], path: Path) -> tuple[dict[str, Any], dict[str, FileDigests]]:
    """Hold a record against its own digest.

    Args:
        record: As it was read.
        path: Its file, for messages.

    Returns:
        The record without its digests, and those of files by group; a record without any is taken as it is.

    Raises:
        DamageError: It is not the one that was saved.
    """
    content = dict(record)
    if DIGESTS not in content:
        return content, {}
    digests = content.pop(DIGESTS)
    groups = {key: value for key, value in digests.items() if key != RECORD} if isinstance(digests, dict) else {}
    is_sound = isinstance(digests, dict) and digests.get(RECORD) == _hash_record(content, groups)
    if not is_sound or not all(map(_is_group, groups.values())):
        raise DamageError(
            f"{path}: is damaged, or was changed by hand since it was saved. {AGAIN}. {_write_way_out(path)}"
        )
    return content, groups


def _hash_record(content: Mapping[str, Any], groups: Mapping[str, Any]) -> str:
    """Hash what a record says: the same whatever the order of its keys and the space between them."""
    plain = json.loads(json.dumps([content, groups]))
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _is_group(group: object) -> bool:
    """Whether an entry holds names inside a folder, each with a size and a hash."""
    return isinstance(group, dict) and all(
        _is_inside(name)
        and isinstance(entry, dict)
        and isinstance(entry.get("size"), int)
        and isinstance(entry.get("sha256"), str)
        for name, entry in group.items()
    )


def _is_inside(name: str) -> bool:
    """Whether a name stays in the folder it is looked up in, whoever wrote the record."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name


def _write_way_out(record: Path) -> str:
    """What to do where the change is meant."""
    return f'If the change is meant, take the entry "{DIGESTS}" out of {record}: then nothing is checked.'


def check_files(paths: Mapping[str, Path], expected: FileDigests, *, record: Path) -> None:
    """Refuse files that are not those that were saved.

    Args:
        paths: Name to place; names without an entry are not looked at.
        expected: Their digests.
        record: The file that holds these, for messages.

    Raises:
        DamageError: One is missing, or holds something else.
    """
    for name, entry in expected.items():
        if name in paths and (problem := _find_damage(paths[name], entry)):
            raise DamageError(f"{paths[name]}: {problem}. {AGAIN}. {_write_way_out(record)}")


def _find_damage(path: Path, entry: Mapping[str, Any]) -> str | None:
    """Say what is wrong with a file; None where it is the one that was saved."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return f"expected the file that was saved, came {'a folder' if path.is_dir() else 'no plain file'}"
        if found.st_size == entry["size"] and _hash(path) == entry["sha256"]:
            return None
        is_json = path.suffix == ".json"
        if is_json and hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest() == entry["sha256"]:
            # Git writes other line ends on Windows; JSON reads both alike.
            return None
        with path.open("rb") as file:
            if file.read(len(POINTER)) == POINTER:
                return "is only a pointer of git-lfs: fetch the file itself with git lfs pull"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if found.st_size != entry["size"]:
        return (
            f"is damaged, or was changed since it was saved: expected {entry['size']:,} bytes, came {found.st_size:,}"
        )
    return "is damaged, or was changed since it was saved: its SHA-256 is another"


@contextmanager
def check_meanwhile(paths: Mapping[str, Path], expected: FileDigests, *, record: Path) -> Iterator[None]:
    """Check files around the block that reads them: large weights while it runs, all else before.

    Whatever goes wrong in the block, damage is the cause that is told.

    Args:
        paths: Name to place.
        expected: Their digests.
        record: The file that holds these, for messages.

    Raises:
        DamageError: A file is missing, or holds something else.
    """
    # Weights that are read wrongly do no harm until they are used; settings and graphs may.
    late = {
        name: entry
        for name, entry in expected.items()
        if name.endswith(".safetensors") and entry["size"] > LARGE_BYTES and _has_size(paths.get(name), entry["size"])
    }
    check_files(paths, {name: entry for name, entry in expected.items() if name not in late}, record=record)
    if not late:
        yield
        return
    with ThreadPoolExecutor(max_workers=1) as pool:
        pending = pool.submit(check_files, paths, late, record=record)
        try:
            yield
        finally:
            pending.result()


def _has_size(path: Path | None, size: int) -> bool:
    """Whether a file is there and has a size."""
    return path is not None and path.is_file() and path.stat().st_size == size


@contextmanager
def check_encoder(record: Path, location: str, revision: str | None, expected: FileDigests) -> Iterator[None]:
    """Check the encoder that an artefact stands on around the block that loads it.

    Args:
        record: The artefact's ``nlp_transfer.json``.
        location: The encoder's folder, or Hub id.
        revision: Of a Hub id.
        expected: Digests of its files.

    Raises:
        ArtifactError: It is not the encoder that the artefact was made for.
    """
    try:
        if os.path.isdir(location):
            paths = {name: Path(location) / name for name in expected}
            with check_meanwhile(paths, expected, record=record):
                yield
        else:
            yield  # which may fetch it
            check_files(list_encoder_files(location, revision), expected, record=record)
    except DamageError as error:
        raise _explain_encoder(record, error) from error


def _explain_encoder(record: Path, error: DamageError) -> ArtifactError:
    """Say whose encoder is damaged."""
    return ArtifactError(f"{record.parent}: its encoder is not the one that it was made for: {error}")


def require_record(record: Path) -> None:
    """Refuse an artefact whose record is gone: it would load, and read texts and give labels in another way.

    Args:
        record: The artefact's ``nlp_transfer.json``; what another tool saved never had one.

    Raises:
        DamageError: The report of the run that wrote it lies there, and it does not.
    """
    folder = record.parent
    if folder.name == "model" and (folder.parent / "report.json").is_file() and not record.exists():
        raise DamageError(
            f"{record}: is missing, although the run beside it wrote one. {AGAIN}; to use the folder without it, copy "
            "that elsewhere."
        )


def require_format(content: object, record: Path) -> None:
    """Refuse what is JSON, and no record of an artefact: another file in its place has no digests that tell.

    Args:
        content: As it was read.
        record: Its file.

    Raises:
        DamageError: It does not say its format.
    """
    if not isinstance(content, dict) or "format" not in content:
        raise DamageError(f"{record}: is no record of an artefact: it does not say its format. {AGAIN}.")


def check_artifact(folder: Path, record: Path) -> None:
    """Check every file of an artefact that is read without `load_artifact`; once in a process while nothing changes.

    Args:
        folder: The ``model/`` folder.
        record: Its ``nlp_transfer.json``.

    Raises:
        DamageError: A file is missing, or is not the one that was saved.
    """
    require_record(record)
    if record.exists():
        expected = _read_digests(record).get("files", {})
        _check_once(record, "files", tuple((name, folder / name, *_stamp(folder / name)) for name in expected))


def check_base(record: Path, location: str, revision: str | None = None) -> None:
    """Check the encoder that an adapter stands on where it is read without `load_artifact`; once likewise.

    Args:
        record: The adapter's ``nlp_transfer.json``.
        location: The encoder's folder, or Hub id, of which what the cache holds is checked.
        revision: Of a Hub id.

    Raises:
        ArtifactError: It is not the encoder that the adapter was made for.
    """
    expected = _read_digests(record).get("encoder", {})
    is_here = os.path.isdir(location)
    paths = {name: Path(location) / name for name in expected} if is_here else list_encoder_files(location, revision)
    try:
        _check_once(record, "encoder", tuple((name, path, *_stamp(path)) for name, path in paths.items()))
    except DamageError as error:
        raise _explain_encoder(record, error) from error


def check_added(record: Path, name: str) -> None:
    """Check a file that came into an artefact's folder after it was saved; one that is missing is no matter here.

    Args:
        record: The artefact's ``nlp_transfer.json``.
        name: The file's name beside it.

    Raises:
        DamageError: The file or the record is not the one that was saved.
    """
    path = record.with_name(name)
    if path.exists():
        check_files({name: path}, _read_digests(record).get("added", {}), record=record)


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes where a file is written; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_size, found.st_mtime_ns, found.st_ino


@functools.lru_cache(maxsize=64)
def _check_once(record: Path, group: str, stamped: tuple[tuple[str, Path, int, int, int], ...]) -> None:
    """Check one group of files; what is refused is not remembered."""
    check_files({name: path for name, path, *_ in stamped}, _read_digests(record).get(group, {}), record=record)


def _read_digests(record: Path) -> dict[str, FileDigests]:
    """Digests by group; none where there is no record, or it has none."""
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DamageError(f"{record}: cannot be read ({' '.join(str(error).split())}). {AGAIN}.") from error
    require_format(content, record)
    return open_record(content, record)[1]
