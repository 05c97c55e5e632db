"""From what `data.path` says to the tables it means: a file, a folder of splits, a bundled set, or a Hub id."""

import difflib
import errno
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import datasets
import huggingface_hub
import pyarrow as pa
from datasets import Dataset

from nlp_transfer.contracts import SPLITS
from nlp_transfer.data.examples import find_example, list_examples
from nlp_transfer.data.findings import Findings
from nlp_transfer.data.tables import holds_table, read_table, read_tables
from nlp_transfer.errors import CAUSES, DataError, find_errno, name_cause
from nlp_transfer.files import explain_writing, find_obstacle
from nlp_transfer.recipe.formats import TABLE_SUFFIXES, is_table_name, split_table_name
from nlp_transfer.recipe.schema import DataConfig

__all__ = ["SPLIT_NAMES", "Source", "open_source", "open_split"]

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test",),
}
"""What sources call the splits."""

SHARD = re.compile(r"(?P<split>.+?)-(?P<number>\d{4,6})-of-(?P<count>\d{4,6})(-[0-9a-fA-F]+)?")
"""A shard's name as the Hub has it: ``train-00000-of-00002``, and in earlier days a hash behind that."""

PART_FOLDER = "data"
"""Where repositories of the Hub keep their shards."""

SHOWN_FILES = 8
"""Files of a folder that a message lists; chosen."""

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
# Which library speaks HTTP differs between releases of huggingface_hub; its own errors name the base class.
HTTP_ERROR: type[Exception] = getattr(huggingface_hub.errors, "HTTPError", OSError)
PROBE_SECONDS = 5.0
"""How long the Hub may take to answer before it counts as out of reach; chosen."""


@dataclass
class Source:
    """The tables of a source, by split, before anything was done to them.

    Attributes:
        name: The source as the user would name it.
        tables: Split name to table.
        where: Split name to the place that messages name.
        findings: What was decided for the user, and what was left out.
    """

    name: str
    tables: dict[str, Dataset]
    where: dict[str, str]
    findings: Findings = field(default_factory=Findings)


@dataclass(frozen=True)
class _Files:
    """The files of one split: one, or all shards.

    Attributes:
        paths: In their order.
        name: How messages name them.
        format: Their ending.
    """

    paths: tuple[Path, ...]
    name: str
    format: str


def open_source(data: DataConfig, source: object | None = None) -> Source:
    """Find and read the tables that a recipe means.

    An existing file or folder comes before a bundled name, and that before a Hub id.

    Args:
        data: The recipe's section.
        source: What is in memory, instead of ``data.path``: a table in any form that `read_table` takes, or a
            `DatasetDict` or other mapping of those by split name.

    Returns:
        At least the train split.

    Raises:
        DataError: There is nothing of that name, it holds no train split, or a table cannot be read.
    """
    found = _open_memory(data, source) if source is not None else _open_path(data, None)
    if "train" not in found.tables:
        raise DataError(
            f"{found.name}: expected a train split, came: {', '.join(found.tables) or 'none'}. "
            "Add train.csv (or tsv, jsonl, parquet, arrow), or name the split with data.splits."
        )
    return found


def open_split(data: DataConfig, split: str) -> Source:
    """Find and read one split of a source; a file is read whole.

    Args:
        data: Names the source; its columns do not matter here.
        split: ``train``, ``validation`` or ``test``, or what the files of a folder are called.

    Returns:
        That split.

    Raises:
        DataError: There is no such split, or it cannot be read.
    """
    found = _open_path(data, split)
    if split not in found.tables:
        raise DataError(f"{data.path}: expected a split {split!r}, came: {', '.join(found.tables)}. Use --split.")
    return found


def _open_path(data: DataConfig, split: str | None) -> Source:
    """Open what ``data.path`` names: all splits of it, or one."""
    path = Path(data.path).expanduser()
    example = find_example(data.path)
    if find_obstacle(path) in (CAUSES[errno.EACCES], CAUSES[errno.ELOOP]):
        raise DataError(f"{data.path}: cannot be reached: {find_obstacle(path)}. Mend that, or name other data.")
    if _exists(path):
        return _open_shadowing(data, path, split) if example else _open_local(data, path, split)
    if example:
        return _open_folder(data, example, data.path, split)
    if HUB_ID.fullmatch(data.path) and not is_table_name(path) and not data.path.startswith("."):
        return _open_hub(data)
    raise DataError(_explain_missing(data.path, path))


def _open_local(data: DataConfig, path: Path, split: str | None) -> Source:
    """Read a folder or a file."""
    return _open_folder(data, path, str(path), split) if path.is_dir() else _open_file(data, path, split or "train")


def _open_shadowing(data: DataConfig, path: Path, split: str | None) -> Source:
    """Read a folder or file that is called like a bundled set, and say that it was taken."""
    kind = "folder" if path.is_dir() else "file"
    shadowing = f"the {kind} {path.absolute()} was taken, as it comes before the bundled data of that name"
    bundled = "To use the bundled, rename it or run elsewhere"
    try:
        found = _open_local(data, path, split)
    except DataError as error:
        raise DataError(f"{error} Note that {shadowing}. {bundled}; to use yours, repair it.") from error
    found.findings.notes.append(f"data.path: {shadowing}. {bundled}; to say that yours is meant, write ./{data.path}.")
    return found


def _exists(path: Path) -> bool:
    """Whether there is something of that name, readable or not."""
    try:
        return path.exists()
    except PermissionError:
        return True
    except OSError:  # A name that is too long for the file system names no file.
        return False


def _explain_missing(name: str, path: Path) -> str:
    """Say that nothing was found, and what is nearest."""
    if os.path.islink(path):  # Unlike Path's own, no error for a name that is too long for the file system.
        return f"data.path: expected a file or folder, came the link {name!r}, which leads to nothing. Mend the link."
    hint = _find_nearest(path)
    name = name if len(name) <= 200 else f"{name[:200]}..."
    return (
        f"data.path: expected a file, a folder of splits, a bundled name ({', '.join(list_examples())}) or a Hub id "
        f"like owner/name, came {name!r}, which is none of these."
        + (hint or " Check the name and the folder you are in.")
    )


def _find_nearest(path: Path) -> str:
    """Ask whether a neighbour in the folder, or a bundled set, of a similar name was meant; empty for none."""
    folder = path.parent
    try:
        neighbours = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    except OSError:
        neighbours = []
    hints = []
    near = difflib.get_close_matches(path.name, neighbours, n=1)
    if near:
        hints.append(f'the file or folder "{folder / near[0]}"')
    bundled = difflib.get_close_matches(path.name, list_examples(), n=1)
    if bundled:
        hints.append(f'the bundled "{bundled[0]}"')
    return f" Did you mean {' or '.join(hints)}?" if hints else ""


def _choose_splits(data: DataConfig, available: list[str], name: str) -> tuple[dict[str, str], list[str]]:
    """Map our split names to those of the source; returns them and the source's splits that are left."""
    chosen: dict[str, str] = {}
    for key, wanted in (data.splits or {}).items():
        split = str(key)
        if wanted not in available:
            near = difflib.get_close_matches(wanted, available, n=1)
            hint = f' Did you mean "{near[0]}"?' if near else " Name one of those."
            raise DataError(
                f"data.splits.{split}: expected a split of {name}, came {wanted!r}; "
                f"there are: {', '.join(available) or 'none'}.{hint}"
            )
        chosen[split] = wanted
    for split in SPLITS:
        if split in chosen:
            continue
        known = [other for other in available if other.lower() in SPLIT_NAMES[split] and other not in chosen.values()]
        if len(known) > 1:
            raise DataError(
                f"{name}: expected one {split} split, came several: {', '.join(known)}. "
                f"Keep one, or choose it with data.splits.{split}."
            )
        if known:
            chosen[split] = known[0]
    left = [other for other in available if other not in chosen.values()]
    return {split: chosen[split] for split in SPLITS if split in chosen}, left


def _note_left(left: list[str]) -> list[str]:
    """Say which splits of the source are not used."""
    return [f"Not used: {', '.join(left)}."] if left else []


def _open_file(data: DataConfig, path: Path, split: str) -> Source:
    """Read a single file as one split."""
    if data.splits:
        raise DataError(
            f"data.splits: expected a source with several splits, came the single file {path}. Remove data.splits."
        )
    found = Source(str(path), {}, {split: str(path)})
    shard = SHARD.fullmatch(split_table_name(path).stem)
    if shard and int(shard["count"]) > 1:
        found.findings.notes.append(
            f"{path} is one of {int(shard['count'])} shards. Name its folder to read all of them."
        )
    found.tables[split] = _read([path], data, str(path), found.findings)
    return found


def _read(paths: Sequence[Path], data: DataConfig, where: str, findings: Findings) -> Dataset:
    """Read the files of a table as the recipe says."""
    return read_tables(
        paths,
        where=where,
        encoding=data.encoding,
        delimiter=data.delimiter,
        sheet=data.sheet,
        findings=findings,
    )


def _open_folder(data: DataConfig, folder: Path, name: str, only: str | None) -> Source:
    """Read a folder that holds the files of each split; all of them, or one."""
    entries = _list_entries(folder, name)
    if {"dataset_dict.json", "dataset_info.json"} & {entry.name for entry in entries}:
        return _open_saved(data, folder, name)
    files, name = _find_files(folder, entries, name)
    # A split may be asked for by the name of its files.
    chosen, left = ({only: only}, []) if only in files else _choose_splits(data, list(files), name)
    if not chosen:
        raise DataError(_explain_folder(folder, entries, name))
    if only is not None:
        if only not in chosen:
            raise DataError(f"{name}: expected a split {only!r}, came: {', '.join(chosen)}. Use --split.")
        chosen, left = {only: chosen[only]}, []
    for split, stem in chosen.items():
        if len(files[stem]) > 1:
            raise DataError(
                f"{name}: expected one {split} file, came several: "
                f"{', '.join(found.name for found in files[stem])}. Keep one, or name the file itself."
            )
    found = Source(name, {}, {}, Findings(notes=_note_left(left)))
    for split, stem in chosen.items():
        held = files[stem][0]
        found.where[split] = f"{name}/{held.name}"
        found.tables[split] = _read(held.paths, data, found.where[split], found.findings)
    return found


def _list_entries(folder: Path, name: str) -> list[Path]:
    """What a folder shows."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "_")))
    except PermissionError:
        raise DataError(
            f"{name}: expected a readable folder, came: permission denied. Change its permissions."
        ) from None


def _find_files(folder: Path, entries: Sequence[Path], name: str) -> tuple[dict[str, list[_Files]], str]:
    """Find the files of every split: in the folder, in folders that are called as splits, or in ``data/``."""
    files = _group_files([entry for entry in entries if entry.is_file()], name)
    known = {alias for aliases in SPLIT_NAMES.values() for alias in aliases}
    for entry in entries:
        if entry.name.lower() in known and entry.is_dir():
            held = _find_parts(entry, f"{name}/{entry.name}")
            if held is not None:
                files.setdefault(entry.name, []).append(held)
    inner = folder / PART_FOLDER
    if not any(stem.lower() in known for stem in files) and inner.is_dir():
        deeper, _ = _find_files(inner, _list_entries(inner, f"{name}/{PART_FOLDER}"), f"{name}/{PART_FOLDER}")
        if any(stem.lower() in known for stem in deeper):
            return deeper, f"{name}/{PART_FOLDER}"
    return files, name


def _group_files(entries: Sequence[Path], name: str) -> dict[str, list[_Files]]:
    """Put the shards of a table together; every other table is one file."""
    found: dict[str, list[_Files]] = {}
    shards: dict[tuple[str, int, str], dict[int, list[Path]]] = {}
    known = {alias for aliases in SPLIT_NAMES.values() for alias in aliases}
    for entry in entries:
        table = split_table_name(entry)
        shard = SHARD.fullmatch(table.stem)
        if table.kind is None:
            continue
        if shard:
            key = (shard["split"], int(shard["count"]), table.suffix + table.compression)
            shards.setdefault(key, {}).setdefault(int(shard["number"]), []).append(entry)
        # Beside tables, .txt files are notes and licences.
        elif table.kind != "lines" or table.stem.lower() in known:
            found.setdefault(table.stem, []).append(_Files((entry,), entry.name, table.suffix + table.compression))
    for (split, count, ending), numbers in shards.items():
        found.setdefault(split, []).append(_join_shards(numbers, split, count, ending, name))
    return found


def _join_shards(numbers: dict[int, list[Path]], split: str, count: int, ending: str, name: str) -> _Files:
    """All shards of a table in their order, refused where one is missing or there twice."""
    pattern = f"{split}-*-of-{count:05d}{ending}"
    twice = [paths for paths in numbers.values() if len(paths) > 1]
    if twice:
        raise DataError(
            f"{name}: expected each shard of {pattern} once, came {' and '.join(path.name for path in twice[0])}. "
            "Keep one."
        )
    missing = [number for number in range(count) if number not in numbers]
    beyond = [paths[0].name for number, paths in numbers.items() if number >= count]
    if beyond:
        raise DataError(f"{name}: expected {count} shards of {split}, came {beyond[0]} too. Remove it, or rename it.")
    if missing:
        shown = ", ".join(f"{split}-{number:05d}-of-{count:05d}{ending}" for number in missing[:SHOWN_FILES])
        raise DataError(
            f"{name}: expected {count} shards of {split}, came {len(numbers)}: missing {shown}"
            f"{', ...' if len(missing) > SHOWN_FILES else ''}. Fetch what is missing."
        )
    paths = tuple(numbers[number][0] for number in range(count))
    return _Files(paths, paths[0].name if count == 1 else pattern, ending)


def _find_parts(folder: Path, name: str) -> _Files | None:
    """The files of a split that has a folder of its own, all of one format; None where no table is in it."""
    held = _group_files([entry for entry in _list_entries(folder, name) if entry.is_file()], name)
    sets = [found for several in held.values() for found in several]
    if not sets:
        return None
    endings = sorted({found.format for found in sets})
    if len(endings) > 1:
        raise DataError(f"{name}: expected files of one format, came {', '.join(endings)}. Keep one.")
    paths = tuple(path for found in sets for path in found.paths)
    shown = paths[0].name if len(paths) == 1 else f"*{endings[0]}"
    return _Files(paths, f"{folder.name}/{shown}", endings[0])


def _explain_folder(folder: Path, entries: Sequence[Path], name: str) -> str:
    """Say that a folder holds no splits."""
    held = ", ".join(entry.name for entry in entries[:SHOWN_FILES]) + (", ..." if len(entries) > SHOWN_FILES else "")
    what = "a file, came a folder without" if is_table_name(folder) else "a folder with"
    return (
        f"{name}: expected {what} train, validation and test files ({', '.join(TABLE_SUFFIXES)}, or shards such as "
        f"train-00000-of-00002.parquet), came: {held or 'nothing'}. Name the file itself, or rename the files to "
        "train.csv and so on."
    )


def _open_saved(data: DataConfig, folder: Path, name: str) -> Source:
    """Read what `save_to_disk` of `datasets` wrote."""
    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(
            f"{name}: expected a data set saved by datasets, came a broken one: {name_cause(error)}. Save it again."
        ) from None
    return _open_memory(data, saved, name=name)


def _open_memory(data: DataConfig, source: object, *, name: str = "data") -> Source:
    """Wrap tables that are in memory already."""
    if holds_table(source):
        source = {"train": source}
    if isinstance(source, list) and not source:
        raise DataError(f"{name}: expected rows, came an empty list. Add rows.")
    if not isinstance(source, Mapping):
        raise DataError(
            f"{name}: expected a datasets.Dataset, a pandas or polars frame, an Arrow table, a dictionary of columns, "
            f"or a mapping of these by split, came {type(source).__name__}. Convert it to one of these."
        )
    chosen, left = _choose_splits(data, [str(split) for split in source], name)
    if not chosen:
        held = ", ".join(f"{split}: {type(table).__name__}" for split, table in list(source.items())[:SHOWN_FILES])
        raise DataError(
            f"{name}: expected columns, each a list of values, or tables by split, came a mapping of "
            f'{held or "nothing"}. Write {{"text": [...], "label": [...]}}, or {{"train": table}}.'
        )
    found = Source(name, {}, {}, Findings(notes=_note_left(left)))
    for split, other in chosen.items():
        found.where[split] = f"{name}, {other}"
        found.tables[split] = read_table(
            source[other],
            encoding=data.encoding,
            delimiter=data.delimiter,
            sheet=data.sheet,
            findings=found.findings,
        )
    return found


def _open_hub(data: DataConfig) -> Source:
    """Load a data set from the Hub, or from its cache; never runs a script from there."""
    name = f"{data.path} ({data.name})" if data.name else data.path
    try:
        with _quiet(), _without_retries():
            loaded = datasets.load_dataset(data.path, data.name, revision=data.revision)
    except (OSError, ValueError, RuntimeError, HTTP_ERROR, datasets.exceptions.DatasetsError) as error:
        if find_errno(error) in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise explain_writing(
                f"data.path: {name}: {datasets.config.HF_DATASETS_CACHE}",
                error,
                what="the data cannot be kept there",
                way_out="Free some space, or set HF_DATASETS_CACHE to another folder.",
                elsewhere="set HF_DATASETS_CACHE to another folder",
            ) from error
        raise DataError(_explain_hub(data, name, error)) from error
    if not isinstance(loaded, Mapping):
        loaded = {"train": loaded}
    return _open_memory(data, loaded, name=name)


def _explain_hub(data: DataConfig, name: str, error: Exception) -> str:
    """Say why a data set of the Hub cannot be had, and the way out."""
    reason = name_cause(error)
    hint = _find_nearest(Path(data.path).expanduser())
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return (
            f"data.path: {data.path!r} is no file or folder here.{hint} Taken as a data set of the Hub: expected "
            f"{name} in the cache of datasets, came nothing, and the Hub must not be asked (HF_HUB_OFFLINE). "
            "Load it once with a network, or say data.path=FOLDER for a copy on this machine."
        )
    if isinstance(error, (ConnectionError, HTTP_ERROR)):
        return (
            f"data.path: {data.path!r} is no file or folder here, so it was taken as a data set of the Hub: expected "
            f"an answer from there, came none ({reason}).{hint} "
            "Check the network, or say data.path=FOLDER for a copy on this machine."
        )
    return (
        f"data.path: expected the Hub data set {name}, came: {reason}.{hint} "
        "Check the id, data.name and data.revision, or say data.path=FOLDER for a copy on this machine."
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Switch the progress bars of `datasets` off for a while."""
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _reach(url: str) -> bool:
    """Whether a server answers, with whatever status."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


@contextmanager
def _without_retries() -> Iterator[None]:
    """Ask the Hub once whether it is there; where it is not, the cache answers at once.

    Left alone, `huggingface_hub` tries every file five times over half a minute before it looks into the cache.
    """
    constants = huggingface_hub.constants
    if constants.HF_HUB_OFFLINE:
        yield
        return
    if not _reach(constants.ENDPOINT):
        constants.HF_HUB_OFFLINE = True
        try:
            yield
        except ConnectionError as error:
            raise ConnectionError(f"no connection to {constants.ENDPOINT}") from error
        finally:
            constants.HF_HUB_OFFLINE = False
        return
    yield
