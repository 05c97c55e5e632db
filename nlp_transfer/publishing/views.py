"""Shared helpers of saved results: JSON values, plain text, templates, and the two files of a result."""

import io
import json
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nlp_transfer.contracts import Score
from nlp_transfer.errors import ArtifactError, OutputError, name_cause
from nlp_transfer.files import check_new_folder, explain_reading, explain_writing
from nlp_transfer.models.digests import FileDigests, open_record

if TYPE_CHECKING:
    from jinja2 import Environment
    from rich.console import RenderableType

__all__ = [
    "claim_view",
    "copy_record",
    "make_templates",
    "read_record",
    "read_styles",
    "show_plain",
    "to_json_value",
    "write_view",
]


def to_json_value(value: Any) -> Any:
    """Convert a value to JSON values: numpy numbers to numbers, numbers that are not finite to None.

    Args:
        value: Any value; an unknown type becomes text.

    Returns:
        Mappings, lists, texts, numbers, booleans and None.

    Example:
        >>> to_json_value({"accuracy": float("nan"), "seeds": (0, 1)})
        {'accuracy': None, 'seeds': [0, 1]}
    """
    if isinstance(value, Mapping):
        return {str(key): to_json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json_value(item) for item in value]
    if isinstance(value, Score):
        return to_json_value(value.to_json())
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    # numpy's numbers and arrays are recognized without an import of numpy.
    if hasattr(value, "tolist"):
        return to_json_value(value.tolist())
    return str(value)


def copy_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a record by way of JSON, so that the copy shares no object with it.

    Args:
        record: JSON values; all numbers must be finite.

    Returns:
        The copy.

    Example:
        >>> copy_record({"seeds": (0, 1)})
        {'seeds': [0, 1]}
    """
    copied: dict[str, Any] = json.loads(json.dumps(record, allow_nan=False))
    return copied


def show_plain(content: "RenderableType", *, width: int) -> str:
    """Print a rich object to text without colors.

    Args:
        content: A table, a text, or a group of them.
        width: Characters per line.

    Returns:
        Lines without trailing spaces.
    """
    from rich.console import Console

    buffer = io.StringIO()
    console = Console(file=buffer, width=width, color_system=None, force_terminal=False, legacy_windows=False)
    console.print(content)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines())


def make_templates(package: str) -> "Environment":
    """Open the HTML templates of a package: every value is escaped, a missing value is an error.

    Args:
        package: Name of a package with a folder ``templates``.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def read_styles() -> str:
    """Read the pages' style sheet, a file of this package, which needs no escaping."""
    return (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")


def claim_view(folder: Path, record: str, *, where: str, source: str, own: Collection[str] = ()) -> Path:
    """Refuse, before any work is done, a folder with other content or with a result on other data.

    Args:
        folder: Folder for the result.
        record: Name of the result's JSON file, which identifies folders of its kind.
        where: Name of the option, for messages.
        source: Name of the data, as in the record under ``data`` and ``source``.
        own: Names of files that may be in the folder before the record is written.

    Returns:
        The folder, with a leading ``~`` resolved.

    Raises:
        OutputError: The path is a file, the folder has other content, or it is not writable.
        StorageError: The disk is full or failing.
    """
    folder = folder.expanduser()
    check_new_folder(folder, where=f"{where}: {folder}")
    if folder.is_dir() and not (folder / record).is_file():
        strangers = sorted(entry.name for entry in folder.iterdir() if entry.name not in own)
        if strangers:
            raise OutputError(f"{where}: {folder} holds something else, such as {strangers[0]}. Name another folder.")
    held = _read_source(folder / record)
    if held is not None and held != source:
        raise OutputError(
            f"{where}: {folder} holds a result on {held}, not on {source}, and is left alone. Name another folder."
        )
    return folder


def _read_source(record: Path) -> str | None:
    """Name of the data in a record; None if there is no record, or no name in it."""
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        return str(found["data"]["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_record(
    path: Path, check: Callable[[dict[str, Any]], None], *, name: str, missing: str, damaged: str
) -> tuple[dict[str, Any], dict[str, FileDigests]]:
    """Read a record that `write_view` wrote.

    Args:
        path: The JSON file.
        check: Raises ValueError, KeyError or TypeError for a record of another kind.
        name: Name of the result in messages, with its article.
        missing: Advice if the file is missing.
        damaged: Advice if the file is damaged.

    Returns:
        The record, and the digests in it.

    Raises:
        ArtifactError: The file is missing or damaged, or was changed after it was saved.
        StorageError: The machine could not read the file.
    """
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError("no object in it")
        check(record)
        return open_record(record, path)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ArtifactError(f"{path}: expected {name}, found none. {missing}") from error
    except OSError as error:
        raise explain_reading(path, error, ArtifactError, way_out=damaged) from error
    except KeyError as error:
        raise ArtifactError(f"{path}: expected {name}, got no {error.args[0]!r} in it. {damaged}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path}: expected {name}, got {name_cause(error)}. {damaged}") from error


def write_view(folder: Path, html: Mapping[str, str], record: Mapping[str, str]) -> None:
    """Write a page and its record into a folder, each atomically.

    Args:
        folder: Created if needed.
        html: File name to page.
        record: File name to JSON; written last, as it marks the folder as finished.

    Raises:
        StorageError: The machine could not write.
    """
    from nlp_transfer.publishing.artifact import write_atomically

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_writing(folder, error, what="could not be made", way_out="Free space and try again.") from error
    for name, page in html.items():
        write_atomically(folder / name, page.encode("utf-8", errors="backslashreplace"))
    for name, text in record.items():
        write_atomically(folder / name, text.encode("utf-8", errors="backslashreplace"))
