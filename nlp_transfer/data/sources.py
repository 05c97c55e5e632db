"""From what `data.path` says to the tables it means: a file, a folder of splits, a bundled set, or a Hub id."""

import difflib
import errno
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import datasets
import huggingface_hub
import pandas as pd
import pyarrow as pa
from datasets import Dataset

from nlp_transfer.contracts import SPLITS
from nlp_transfer.data.examples import find_example, list_examples
from nlp_transfer.data.tables import TABLE_SUFFIXES, read_table
from nlp_transfer.errors import CAUSES, DataError, find_errno, name_cause
from nlp_transfer.files import explain_writing, find_obstacle
from nlp_transfer.recipe.schema import DataConfig

__all__ = ["SPLIT_NAMES", "Source", "open_source"]

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test",),
}
"""What sources call the splits."""

HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
# Which library speaks HTTP differs between releases of huggingface_hub; its own errors name the base class.
HTTP_ERROR: type[Exception] = getattr(huggingface_hub.errors, "HTTPError", OSError)
PROBE_SECONDS = 5.0
"""How long the Hub may take to answer before it counts as out of reach; chosen."""


class Source:
    """The tables of a source, by split, before anything was done to them.

    Args:
        name: The source as the user would name it.
        tables: Split name to table.
        where: Split name to the place that messages name.
        notes: What was decided for the user.
    """

    def __init__(self, name: str, tables: Mapping[str, Dataset], where: Mapping[str, str], notes: list[str]) -> None:
        self.name = name
        self.tables = dict(tables)
        self.where = dict(where)
        self.notes = notes


def open_source(data: DataConfig, source: object | None = None) -> Source:
    """Find and read the tables that a recipe means.

    An existing file or folder comes before a bundled name, and that before a Hub id.

    Args:
        data: The recipe's section.
        source: Tables in memory, instead of ``data.path``: a `datasets.Dataset` or `DatasetDict`, a pandas frame,
            or a mapping of those by split name.

    Returns:
        At least the train split.

    Raises:
        DataError: There is nothing of that name, it holds no train split, or a table cannot be read.
    """
    if source is not None:
        found = _open_memory(data, source)
    else:
        path = Path(data.path).expanduser()
        example = find_example(data.path)
        if find_obstacle(path) in (CAUSES[errno.EACCES], CAUSES[errno.ELOOP]):
            raise DataError(f"{data.path}: cannot be reached: {find_obstacle(path)}. Mend that, or name other data.")
        if _exists(path):
            found = _open_shadowing(data, path) if example else _open_path(data, path)
        elif example:
            found = _open_folder(data, example, data.path)
        elif (
            HUB_ID.fullmatch(data.path) and path.suffix.lower() not in TABLE_SUFFIXES and not data.path.startswith(".")
        ):
            found = _open_hub(data)
        else:
            raise DataError(_explain_missing(data.path, path))
    if "train" not in found.tables:
        raise DataError(
            f"{found.name}: expected a train split, came: {', '.join(found.tables) or 'none'}. "
            "Add train.csv (or tsv, jsonl, parquet, arrow), or name the split with data.splits."
        )
    return found


def _open_path(data: DataConfig, path: Path) -> Source:
    """Read a folder or a file."""
    return _open_folder(data, path, str(path)) if path.is_dir() else _open_file(data, path)


def _open_shadowing(data: DataConfig, path: Path) -> Source:
    """Read a folder or file that is called like a bundled set, and say that it was taken."""
    kind = "folder" if path.is_dir() else "file"
    shadowing = f"the {kind} {path.absolute()} was taken, as it comes before the bundled data of that name"
    bundled = "To use the bundled, rename it or run elsewhere"
    try:
        found = _open_path(data, path)
    except DataError as error:
        raise DataError(f"{error} Note that {shadowing}. {bundled}; to use yours, mend it.") from error
    found.notes.append(f"data.path: {shadowing}. {bundled}; to say that yours is meant, write ./{data.path}.")
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


def _open_file(data: DataConfig, path: Path) -> Source:
    """Read a single file as train."""
    if data.splits:
        raise DataError(
            f"data.splits: expected a source with several splits, came the single file {path}. Remove data.splits."
        )
    return Source(str(path), {"train": read_table(path, encoding=data.encoding)}, {"train": str(path)}, [])


def _open_folder(data: DataConfig, folder: Path, name: str) -> Source:
    """Read a folder that holds one file a split."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except PermissionError:
        raise DataError(
            f"{name}: expected a readable folder, came: permission denied. Change its permissions."
        ) from None
    if {"dataset_dict.json", "dataset_info.json"} & {entry.name for entry in entries}:
        return _open_saved(data, folder, name)
    files: dict[str, list[Path]] = {}
    for entry in entries:
        if entry.suffix.lower() in TABLE_SUFFIXES and entry.is_file():
            files.setdefault(entry.stem, []).append(entry)
    chosen, left = _choose_splits(data, list(files), name)
    if not chosen:
        held = ", ".join(entry.name for entry in entries[:8]) + (", ..." if len(entries) > 8 else "")
        what = "a file, came a folder without" if folder.suffix.lower() in TABLE_SUFFIXES else "a folder with"
        raise DataError(
            f"{name}: expected {what} train, validation and test files ({', '.join(TABLE_SUFFIXES)}), "
            f"came: {held or 'nothing'}. Name the file itself, or rename the files to train.csv and so on."
        )
    for split, stem in chosen.items():
        if len(files[stem]) > 1:
            raise DataError(
                f"{name}: expected one {split} file, came several: "
                f"{', '.join(file.name for file in files[stem])}. Keep one."
            )
    paths = {split: files[stem][0] for split, stem in chosen.items()}
    tables = {split: read_table(path, encoding=data.encoding) for split, path in paths.items()}
    where = {split: f"{name}/{path.name}" for split, path in paths.items()}
    return Source(name, tables, where, _note_left(left))


def _open_saved(data: DataConfig, folder: Path, name: str) -> Source:
    """Read what `save_to_disk` of `datasets` wrote."""
    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(
            f"{name}: expected a data set saved by datasets, came a broken one: {name_cause(error)}. Save it anew."
        ) from None
    return _open_memory(data, saved, name=name)


def _open_memory(data: DataConfig, source: object, *, name: str = "data") -> Source:
    """Wrap tables that are in memory already."""
    if isinstance(source, Dataset | pd.DataFrame | pa.Table | str | os.PathLike):
        source = {"train": source}
    if not isinstance(source, Mapping):
        raise DataError(
            f"{name}: expected a datasets.Dataset, a DatasetDict, a pandas frame or a mapping of these, "
            f"came {type(source).__name__}. Convert it to one of these."
        )
    chosen, left = _choose_splits(data, [str(split) for split in source], name)
    tables = {split: read_table(source[other], encoding=data.encoding) for split, other in chosen.items()}
    return Source(name, tables, {split: f"{name}, {other}" for split, other in chosen.items()}, _note_left(left))


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
