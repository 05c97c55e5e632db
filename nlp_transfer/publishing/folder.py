"""Whose folder is it: a run resumes its own, starts beside a finished one, and touches nobody else's."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nlp_transfer.errors import OutputError, RecipeError, StorageError
from nlp_transfer.publishing.artifact import write_atomically
from nlp_transfer.recipe.load import load_recipe, recipe_to_yaml
from nlp_transfer.recipe.schema import Recipe

__all__ = ["RunFolder", "claim_folder", "list_differences"]

RECIPE_FILE = "recipe.yaml"
REPORT_FILE = "report.json"
LOCK_FILE = ".lock"
MOST_SIBLINGS = 1000


@dataclass(frozen=True)
class RunFolder:
    """A folder that this process may write to.

    Attributes:
        path: The folder.
        recipe: The recipe with ``report.output_dir`` set to it.
        is_resumed: Whether an unfinished run of the same recipe lies there.
        said: What the user should be told, one sentence, or empty.
    """

    path: Path
    recipe: Recipe
    is_resumed: bool
    said: str


def list_differences(left: Mapping[str, Any], right: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name the dotted keys in which two recipes differ.

    Example:
        >>> list_differences({"a": {"b": 1}}, {"a": {"b": 2}})
        ['a.b: 1 there, 2 now']
    """
    found = []
    for key in dict.fromkeys([*left, *right]):
        one, other = left.get(key), right.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += list_differences(one, other, f"{prefix}{key}.")
        elif one != other:
            found.append(f"{prefix}{key}: {one!r} there, {other!r} now")
    return found


@contextmanager
def claim_folder(recipe: Recipe) -> Iterator[RunFolder]:
    """Find the folder of a run, lock it, and write the resolved recipe there.

    Args:
        recipe: Its ``report.output_dir`` is where to look first.

    Yields:
        The folder; the lock is held until the block ends, and ends with the process.

    Raises:
        OutputError: The folder is another run's, or no run's, or in use.
        StorageError: It cannot be written to.
    """
    wanted = Path(recipe.report.output_dir).expanduser()
    for number in range(1, MOST_SIBLINGS):
        path = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        _refuse_foreign(path, recipe)
        if (path / REPORT_FILE).is_file():
            continue
        break
    else:
        raise OutputError(f"report.output_dir: {wanted} and {MOST_SIBLINGS} siblings hold finished runs. Name another.")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(
            f"report.output_dir: {path} is in use by a run that is still going. Wait for it or name another folder."
        ) from error
    except OSError as error:
        if isinstance(error, PermissionError | FileExistsError | NotADirectoryError):
            raise OutputError(f"report.output_dir: {path} cannot be written to: {error.strerror}.") from error
        raise StorageError(f"report.output_dir: {path}: {error}") from error
    try:
        _refuse_foreign(path, recipe)
        is_resumed = (path / RECIPE_FILE).is_file()
        said = ""
        if number > 1 and not is_resumed:
            said = f"{wanted} holds a finished run of this recipe and is left alone; this run goes to {path}."
        elif is_resumed:
            said = f"{path} holds an unfinished run of this recipe; going on with it."
        placed = recipe.model_copy(update={"report": recipe.report.model_copy(update={"output_dir": str(path)})})
        if not is_resumed:
            write_atomically(path / RECIPE_FILE, recipe_to_yaml(placed))
        yield RunFolder(path, placed, is_resumed, said)
    finally:
        lock.release()
        (path / LOCK_FILE).unlink(missing_ok=True)


def _refuse_foreign(path: Path, recipe: Recipe) -> None:
    """Refuse a folder that another recipe, or no recipe, filled."""
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"report.output_dir: {path} is a file. Name a folder.")
    stored = path / RECIPE_FILE
    if not stored.is_file():
        strangers = [entry.name for entry in path.iterdir() if entry.name != LOCK_FILE]
        if strangers:
            raise OutputError(
                f"report.output_dir: {path} holds files that no run left, such as {sorted(strangers)[0]}. "
                "Name another folder; nothing there was touched."
            )
        return
    try:
        earlier = load_recipe(stored)
    except RecipeError as error:
        raise OutputError(
            f"report.output_dir: {path} holds a recipe that this version cannot read. Name another folder. ({error})"
        ) from error
    there, now = (_without_place(each) for each in (earlier, recipe))
    differences = list_differences(there, now)
    if differences:
        more = f", and {len(differences) - 1} more" if len(differences) > 1 else ""
        raise OutputError(
            f"report.output_dir: {path} belongs to another recipe ({differences[0]}{more}). "
            "Name another folder: report.output_dir=runs/NAME. Nothing there was touched."
        )


def _without_place(recipe: Recipe) -> dict[str, Any]:
    """A recipe as a dictionary, its output folder left out."""
    content = recipe.model_dump(mode="json")
    del content["report"]["output_dir"]
    return content
