"""Ownership of the output folder: a run resumes its own, starts beside a finished one, and touches no other."""

import json
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nlp_transfer.errors import OutputError, RecipeError, TransferError, name_cause
from nlp_transfer.files import explain_writing
from nlp_transfer.models.digests import open_record
from nlp_transfer.publishing.artifact import write_atomically
from nlp_transfer.recipe.load import load_recipe, recipe_to_yaml
from nlp_transfer.recipe.schema import Recipe

__all__ = ["MACHINE_FILE", "RunFolder", "claim_folder", "list_differences"]

RECIPE_FILE = "recipe.yaml"
REPORT_FILE = "report.json"
LOCK_FILE = ".lock"
MACHINE_FILE = ".machine.json"
"""Measurements of the machine, kept for a run that is not finished."""
MOST_SIBLINGS = 1000
MOST_DIFFERENCES = 5  # chosen: keys named in a message; the rest is counted
MOST_CHARACTERS = 60  # chosen: characters of a value shown in a message


@dataclass(frozen=True)
class RunFolder:
    """A folder that this process may write to.

    Attributes:
        path: The folder.
        recipe: The recipe with ``report.output_dir`` set to it.
        is_resumed: Whether the folder holds an unfinished run of the same recipe.
        said: One sentence for the user, or empty.
    """

    path: Path
    recipe: Recipe
    is_resumed: bool
    said: str


def list_differences(left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name the dotted keys in which two recipes differ, with both values.

    Example:
        >>> list_differences({"a": {"b": 1}}, {"a": {"b": 2}})
        ['a.b: 1 -> 2']
    """
    found = []
    for key in dict.fromkeys([*left, *right]):
        one, other = left.get(key), right.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += list_differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append(f"{prefix}{key}: {_write_value(one)} -> {_write_value(other)}")
    return found


def _write_value(value: Any) -> str:
    """Write a value on one line, cut where it is long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."


@contextmanager
def claim_folder(recipe: Recipe) -> Iterator[RunFolder]:
    """Find the folder of a run, lock it, and write the resolved recipe there.

    Args:
        recipe: Its ``report.output_dir`` is tried first.

    Yields:
        The folder; the lock is held until the block or the process ends. If the block fails before it has written
        anything but the recipe, the folder is removed, so that a corrected recipe can use the same one.

    Raises:
        OutputError: The folder belongs to another run or to something that is not a run, or is in use.
        StorageError: The folder cannot be written to.
    """
    wanted = Path(recipe.report.output_dir).expanduser()
    path = _choose_folder(wanted, recipe)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    lock = _lock_folder(path)
    is_new = is_done = False
    try:
        _refuse_foreign(path, recipe)
        is_resumed = (path / RECIPE_FILE).is_file()
        said = ""
        if path != wanted and not is_resumed:
            said = f"{wanted} holds a finished run of this recipe and is left alone; this run goes to {path}."
        elif is_resumed:
            said = f"{path} holds an unfinished run of this recipe; resuming it."
        placed = recipe.model_copy(update={"report": recipe.report.model_copy(update={"output_dir": str(path)})})
        if not is_resumed:
            write_atomically(path / RECIPE_FILE, recipe_to_yaml(placed))
            is_new = True
        yield RunFolder(path, placed, is_resumed, said)
        is_done = True
    finally:
        if is_new and not is_done:
            _remove_bare(path)
        lock.release()
        (path / LOCK_FILE).unlink(missing_ok=True)
        if not is_done:
            with suppress(OSError):  # A folder that is not empty stays.
                for folder in made:
                    folder.rmdir()


def _choose_folder(wanted: Path, recipe: Recipe) -> Path:
    """Choose the folder itself, or the first sibling that is empty or ours and holds no finished run."""
    for number in range(1, MOST_SIBLINGS):
        path = _name_sibling(wanted, number)
        try:
            _refuse_foreign(path, recipe)
            if not (path / REPORT_FILE).is_file():
                return path
            _refuse_changed(path, recipe)
        except OutputError:
            # The user did not name a sibling, so a foreign one is skipped without an error.
            if number == 1:
                raise
        except OSError as error:
            raise _explain_failure(path, error) from error
    raise OutputError(f"report.output_dir: {wanted} and {MOST_SIBLINGS} siblings are taken. Name another.")


def _name_sibling(wanted: Path, number: int) -> Path:
    """The folder itself for number 1, else the path beside it with that number."""
    if number == 1:
        return wanted
    named = wanted if wanted.name not in ("", "..") else wanted.resolve()  # "." has no name of its own
    return named.with_name(f"{named.name}-{number}")


def _lock_folder(path: Path) -> FileLock:
    """Make a folder and lock it against other runs."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"report.output_dir: {path} is in use by a run that has not ended. Wait for it or name another folder."
        ) from error
    except (OSError, ValueError) as error:
        raise _explain_failure(path, error) from error
    return lock


def _explain_failure(path: Path, error: OSError | ValueError) -> TransferError:
    """Turn a failure into an error that says if the path or the machine is at fault."""
    where = f"report.output_dir: {path}"
    if isinstance(error, FileExistsError) and path.is_symlink():
        return OutputError(f"{where} is a link that leads to nothing. Name a folder.")
    if isinstance(error, ValueError):
        return OutputError(f"{where} cannot be written to: {name_cause(error)}. Name another folder.")
    return explain_writing(where, error, what="cannot be written to", way_out="Free space, or name another folder.")


def _remove_bare(path: Path) -> None:
    """Empty a folder in which a run left only its recipe and empty folders."""
    if any(entry.is_file() and entry.name not in (RECIPE_FILE, LOCK_FILE, MACHINE_FILE) for entry in path.rglob("*")):
        return
    for entry in path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
    for name in (RECIPE_FILE, MACHINE_FILE):
        (path / name).unlink(missing_ok=True)


def _refuse_foreign(path: Path, recipe: Recipe) -> None:
    """Refuse a folder that belongs to another recipe, or that is not empty and has no recipe."""
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"report.output_dir: {path} is a file. Name a folder.")
    stored = path / RECIPE_FILE
    if not stored.is_file():
        strangers = [entry.name for entry in path.iterdir() if entry.name != LOCK_FILE]
        if strangers:
            raise OutputError(
                f"report.output_dir: {path} holds no {RECIPE_FILE} but files that are not of a run, such as "
                f"{sorted(strangers)[0]}. "
                "Name another folder; nothing there was touched."
            )
        return
    try:
        earlier = load_recipe(stored)
    except RecipeError as error:
        raise OutputError(
            f"report.output_dir: {path} holds a {RECIPE_FILE} that this version cannot read. Name another folder. "
            f"({error})"
        ) from error
    there, now = (_without_place(each) for each in (earlier, recipe))
    differences = list_differences(there, now)
    if differences:
        differences.sort(key=lambda difference: difference.startswith("description:"))
        shown, more = differences[:MOST_DIFFERENCES], len(differences) - MOST_DIFFERENCES
        raise OutputError(
            f"report.output_dir: {path} belongs to another recipe ({', '.join(shown)}"
            f"{f', and {more} more' if more > 0 else ''}; its {RECIPE_FILE} -> now). "
            f"Nothing there was touched. To run this recipe beside it, add: {_write_way_out(path)}"
        )


def _refuse_changed(path: Path, recipe: Recipe) -> None:
    """Refuse the recipe file of a finished run that differs from the recipe in the run's report."""
    try:
        record, _ = open_record(json.loads((path / REPORT_FILE).read_text(encoding="utf-8")), path / REPORT_FILE)
        ran = load_recipe(record["recipe"])
    except (OSError, ValueError, KeyError, TypeError, TransferError):
        return  # A report that cannot be read does not matter to a further run.
    differences = list_differences(_without_place(ran), _without_place(recipe))
    if differences:
        raise OutputError(
            f"report.output_dir: {path / RECIPE_FILE} is not the recipe that was run there "
            f"({', '.join(differences[:MOST_DIFFERENCES])}; {REPORT_FILE} -> {RECIPE_FILE}): it was changed or is "
            f"damaged. To run the changed recipe in another folder, add: {_write_way_out(path)}"
        )


def _write_way_out(path: Path) -> str:
    """The override, quoted for a shell, that names the first unused path beside a taken folder."""
    numbers = range(2, MOST_SIBLINGS)
    free = next((name for n in numbers if not os.path.lexists(name := _name_sibling(path, n))), "runs/NAME")
    return f"report.output_dir={shlex.quote(str(free))}"


def _without_place(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a dictionary, without its output folder."""
    content = recipe.model_dump(mode="json")
    del content["report"]["output_dir"]
    return content
