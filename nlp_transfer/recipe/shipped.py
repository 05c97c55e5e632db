"""The recipes that come with the package: listed, read and copied by name."""

from collections.abc import Mapping
from pathlib import Path

from nlp_transfer.errors import OutputError, RecipeError, StorageError, TransferError, name_cause
from nlp_transfer.files import MACHINE_ERRORS, explain_writing, find_obstacle
from nlp_transfer.recipe.fields import suggest_nearest
from nlp_transfer.recipe.yaml12 import MAX_CHARACTERS, parse_yaml

__all__ = [
    "copy_shipped",
    "expand_path",
    "explain_unknown_name",
    "find_shipped",
    "find_shipped_name",
    "list_shipped",
    "list_shipped_names",
    "locate_shipped",
    "read_recipe_file",
    "read_shipped",
]

MAX_BYTES = 4 * MAX_CHARACTERS
"""Largest recipe file that is read: UTF-8 has at most four bytes a character."""

SUITES = "benchmarks/"
"""Folder of the benchmark suites, which are not recipes but name some."""

_MAX_SHOWN = 60  # chosen: characters of a name shown in a message


def locate_shipped() -> Path:
    """Find the folder of the shipped recipes: beside the package in a checkout, inside it in a wheel.

    Raises:
        RecipeError: Neither folder exists; the installation is incomplete.
    """
    package = Path(__file__).resolve().parents[1]
    beside = package.parent / "recipes"
    if (beside / "quickstart.yaml").is_file() and (package.parent / "pyproject.toml").is_file():
        return beside
    inside = package / "_recipes"
    if (inside / "quickstart.yaml").is_file():
        return inside
    raise RecipeError(f"the shipped recipes are missing, expected them in {inside}. Reinstall nlp_transfer.")


def _index_shipped() -> dict[str, Path]:
    """Map every shipped name to its file, sorted; links that lead out of the folder are ignored."""
    root = locate_shipped().resolve()
    files = [path for path in root.rglob("*.yaml") if path.is_file() and path.resolve().is_relative_to(root)]
    names = {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(files)}
    return {name: path for name, path in names.items() if not name.startswith(SUITES)}


def list_shipped_names() -> list[str]:
    """List the names of all shipped recipes, sorted, without opening any."""
    return sorted(_index_shipped())


def list_shipped() -> dict[str, str]:
    """Map the name of every shipped recipe to its description, sorted by name.

    Example:
        >>> "quickstart" in list_shipped()
        True
    """
    descriptions = {}
    for name, path in sorted(_index_shipped().items()):
        held = parse_yaml(read_recipe_file(path), source=name)
        descriptions[name] = str(held.get("description", "")) if isinstance(held, Mapping) else ""
    return descriptions


def find_shipped(name: str) -> Path | None:
    """Find the file of a shipped recipe; None for any name that ``list_shipped`` does not list.

    Example:
        >>> find_shipped("quickstart.yaml").name, find_shipped("../pyproject")
        ('quickstart.yaml', None)
    """
    return _index_shipped().get(name.removesuffix(".yaml"))


def find_shipped_name(path: Path) -> str | None:
    """Give the name of the shipped recipe in a file; None for any other file."""
    try:
        resolved, shipped = path.resolve(), _index_shipped()
    except (RecipeError, OSError, RuntimeError):
        return None  # a user's own recipe loads even where the shipped recipes are missing
    return next((name for name, file in shipped.items() if file.resolve() == resolved), None)


def read_shipped(name: str) -> str:
    """Read the text of a shipped recipe, comments included.

    Args:
        name: Such as ``sentiment/lora``, with or without ``.yaml``.

    Raises:
        RecipeError: No recipe has that name; the message gives the nearest.

    Example:
        >>> read_shipped("quickstart").startswith("description:")
        True
    """
    path = find_shipped(name)
    if path is None:
        raise RecipeError(explain_unknown_name(name))
    return read_recipe_file(path)


def explain_unknown_name(name: str) -> str:
    """Say that no recipe has the given name, and suggest the nearest one."""
    names = list_shipped_names()
    shown = name if len(name) <= _MAX_SHOWN else name[:_MAX_SHOWN] + "..."
    wanted = name.removesuffix(".yaml").strip("/")
    related = [known for known in names if wanted in known.split("/")]
    hint = f" There are {', '.join(related)}." if related else suggest_nearest(wanted, names)
    return f'recipe "{shown}": no shipped recipe and no file of that name.{hint} See nlp-transfer list.'


def read_recipe_file(path: Path) -> str:
    """Read a recipe file as UTF-8 text.

    Raises:
        RecipeError: The path is no regular file, cannot be opened, is far too large for a recipe, or is not UTF-8.
        StorageError: The disk failed.
    """
    try:
        if path.is_dir():
            raise RecipeError("expected a recipe file, got a folder. Name a .yaml file inside it.", source=str(path))
        if path.exists() and not path.is_file():
            raise RecipeError("expected a recipe file, got a device or pipe. Name a .yaml file.", source=str(path))
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _explain_failure(path, error) from error
    if len(content) > MAX_BYTES:
        raise RecipeError(
            f"expected a recipe, got a file of more than {MAX_BYTES:,} bytes. Is this a data file?", source=str(path)
        )
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise RecipeError(
            f"line {line}: expected UTF-8 text, got the byte 0x{content[error.start]:02x}. Save the file as UTF-8.",
            source=str(path),
        ) from None


def expand_path(path: str | Path) -> Path:
    """Replace a leading ``~`` by the home folder; for an unknown user the path stays unchanged."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def _explain_failure(path: Path, error: OSError | ValueError) -> TransferError:
    """Make a `RecipeError` of the user's mistakes and a `StorageError` of failures of the machine."""
    if isinstance(error, OSError) and (obstacle := find_obstacle(path)) and not isinstance(error, PermissionError):
        return RecipeError(f"cannot be opened: {obstacle}. Check the path.", source=str(path))
    if isinstance(error, FileNotFoundError):
        return RecipeError("no such file. Check the path, or see nlp-transfer list.", source=str(path))
    if isinstance(error, PermissionError):
        return RecipeError("this file may not be read. Check its permissions.", source=str(path))
    if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
        return StorageError(f"{path}: could not be read: {name_cause(error)}. Check the disk, and try again.")
    return RecipeError(f"cannot be opened: {name_cause(error)}. Check the path.", source=repr(str(path)))


def copy_shipped(name: str, dest: str | Path) -> Path:
    """Copy a shipped recipe, comments included, to edit it.

    Args:
        name: Such as ``sentiment/lora``.
        dest: A file to write, or an existing folder, in which the file becomes ``sentiment-lora.yaml``.

    Returns:
        The file that was written.

    Raises:
        RecipeError: No recipe has that name.
        OutputError: The file exists already, or may not be written.
        StorageError: The disk is full or failed; nothing is left behind.
    """
    text = read_shipped(name)
    target = expand_path(dest)
    made = False
    try:
        if target.is_dir():
            target = target / f"{name.removesuffix('.yaml').replace('/', '-')}.yaml"
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("x", encoding="utf-8", newline="\n") as file:
            made = True
            file.write(text)
    except FileExistsError:
        raise OutputError(f"{target}: exists already and is left alone. Name another file.") from None
    except OSError as error:
        if made:
            target.unlink(missing_ok=True)
        raise explain_writing(
            target, error, way_out="Free space and try again.", elsewhere="name another file"
        ) from error
    return target
