"""Files and folders: what stands in the way of one, and writing so that everybody may read it whom the umask allows."""

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from nlp_transfer.errors import OutputError, StorageError, TransferError, find_errno, name_cause

__all__ = [
    "MACHINE_ERRORS",
    "check_new_file",
    "check_new_folder",
    "copy_folder",
    "explain_reading",
    "explain_writing",
    "find_obstacle",
    "find_unreadable",
    "settle_modes",
    "write_atomically",
]

MACHINE_ERRORS = frozenset(
    {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM, errno.EMFILE, errno.ENFILE}
)
"""What the machine is at fault for; all else lies in a path or in its permissions."""

DENIED = frozenset({errno.EACCES, errno.EPERM})


def find_obstacle(path: str | Path) -> str:
    """Say why a path cannot be reached.

    A name that leads nowhere looks like one that is not there, unless it is asked in this way.

    Args:
        path: A file or folder.

    Returns:
        The cause, to go into a sentence; empty where the path is there, and where there is simply nothing.

    Example:
        >>> find_obstacle("."), find_obstacle("no-such-file")
        ('', '')
        >>> find_obstacle("x" * 1000)
        'the name is too long for the file system'
    """
    try:
        os.stat(path)
    except FileNotFoundError:
        return "it is a link that leads to nothing" if os.path.islink(path) else ""
    except NotADirectoryError:
        return ""  # "a.csv/b" is not there.
    except (OSError, ValueError) as error:
        return name_cause(error)
    return ""


def find_unreadable(folder: Path) -> tuple[Path, OSError] | None:
    """Look for a file that may not be read, as libraries call it damaged or missing.

    Args:
        folder: Its files and those one level below are opened, no more.

    Returns:
        The first one and why; None where every file opens.
    """
    try:
        for entry in sorted(folder.iterdir()):
            inner = sorted(entry.iterdir()) if entry.is_dir() else [entry]
            for path in inner:
                if path.is_file():
                    with path.open("rb"):
                        pass
    except OSError as error:
        return Path(error.filename or folder), error
    return None


def explain_reading(where: object, error: BaseException, kind: type[TransferError], *, way_out: str) -> TransferError:
    """Tell a file that may not be read from one that the disk fails on, and both from one that is damaged.

    Args:
        where: What the message names first.
        error: What was raised.
        kind: What to raise where the user's input is at fault.
        way_out: What to do about a file that is there, may be read, and is no good; a whole sentence.

    Returns:
        The error to raise.

    Example:
        >>> print(explain_reading("a.csv", PermissionError(13, "no"), OutputError, way_out="Copy it again."))
        a.csv cannot be read: permission denied. Change its permissions, or ask its owner to.
    """
    number = find_errno(error)
    if number in DENIED:
        return kind(f"{where} cannot be read: permission denied. Change its permissions, or ask its owner to.")
    if number in MACHINE_ERRORS:
        return StorageError(f"{where} cannot be read: {name_cause(error)}. Check the disk, and try again.")
    return kind(f"{where} cannot be read: {name_cause(error)}. {way_out}")


def explain_writing(
    where: object,
    error: BaseException,
    *,
    what: str = "could not be written",
    way_out: str = "Free space and run the same command again.",
    elsewhere: str = "name another folder",
) -> TransferError:
    """Tell a place that may not be written to from a disk that is full or fails.

    Args:
        where: What the message names first.
        error: What was raised.
        what: What did not come off.
        way_out: What to do where the machine is at fault; a whole sentence.
        elsewhere: What to do where the place is; it ends a sentence.

    Returns:
        The error to raise: `StorageError` for the machine, `OutputError` for the place.

    Example:
        >>> print(explain_writing("runs/a", PermissionError(13, "no")))
        runs/a: could not be written: permission denied. Change the permissions there, or name another folder.
    """
    number = find_errno(error)
    if number is None or number in MACHINE_ERRORS:
        return StorageError(f"{where}: {what}: {name_cause(error)}. {way_out}")
    change = "Change the permissions there, or " if number in DENIED else ""
    order = f"{change}{elsewhere}"
    return OutputError(f"{where}: {what}: {name_cause(error)}. {order[0].upper()}{order[1:]}.")


def check_new_file(path: Path, *, where: str) -> None:
    """Make sure that a file can be written, before the work whose result goes there.

    Args:
        path: The file; its folder must be there.
        where: What the message names first.

    Raises:
        OutputError: It is a folder, its folder is none, or nothing may be written there.
        StorageError: The disk is full or failing.
    """
    aside = path.with_name(f".{path.name}.writing")
    try:
        if path.is_dir():
            raise OutputError(f"{where}: is a folder. Name a file in it.")
        with aside.open("ab"):
            pass
        aside.unlink()
    except FileNotFoundError as error:
        raise OutputError(f"{where}: there is no folder {path.parent}. Make it first.") from error
    except OSError as error:
        raise explain_writing(where, error, what="cannot be written", elsewhere="name another file") from error


def check_new_folder(folder: Path, *, where: str) -> None:
    """Make sure that a folder can be made and filled, before the work whose results go there; nothing is left there.

    Args:
        folder: It need not be there.
        where: What the message names first.

    Raises:
        OutputError: It is a file, lies in one, or nothing may be written there.
        StorageError: The disk is full or failing.
    """
    made: list[Path] = []
    try:
        for place in (*reversed(folder.parents), folder):
            # A link that leads to nothing is no folder, but mkdir finds something of that name.
            if not place.is_dir():
                place.mkdir(exist_ok=True)
                made.append(place)
        trial = folder / f".{uuid.uuid4().hex}.writing"
        with trial.open("xb"):
            pass
        trial.unlink()
    except FileExistsError as error:
        blocking = next(place for place in (*reversed(folder.parents), folder) if not place.is_dir())
        what = "is a link that leads to nothing" if blocking.is_symlink() else "is a file"
        named = "" if blocking == folder else f" {blocking}"
        raise OutputError(f"{where}:{named} {what}. Name a folder.") from error
    except OSError as error:
        raise explain_writing(where, error, what="cannot be written to") from error
    finally:
        with contextlib.suppress(OSError):  # Somebody else may have put something there by now.
            for place in reversed(made):
                place.rmdir()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file aside, sync it and rename it over its name.

    Args:
        path: Where it ends up.
        content: Text is written as UTF-8.

    Raises:
        OutputError: Nothing may be written there.
        StorageError: The disk is full or failing; what was there stays.
    """
    aside = path.with_name(f".{path.name}.writing")
    try:
        with aside.open("wb") as file:
            file.write(content.encode("utf-8") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise explain_writing(path, error) from error
    finally:
        # There no more where all went well; a signal may end a command anywhere.
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def copy_folder(source: Path, target: Path) -> None:
    """Copy files and folders with what they hold, and no more: the copy has the modes of anything new.

    Args:
        source: A folder.
        target: Must not be there.

    Raises:
        OSError: As the system raises it.
    """
    target.mkdir(parents=True)
    for entry in sorted(source.iterdir()):
        if entry.is_dir():
            copy_folder(entry, target / entry.name)
        else:
            shutil.copyfile(entry, target / entry.name)


def settle_modes(place: Path) -> None:
    """Give what a library wrote the modes that anything new gets there.

    Safetensors and Python's temporary files are readable by their owner alone, whatever the umask; a folder that is
    handed on must not be.

    Args:
        place: A file, or a folder with all it holds.

    Raises:
        OSError: As the system raises it.
    """
    if os.name == "nt":
        return
    file_mode, folder_mode = _read_modes(place if place.is_dir() else place.parent)
    for path in _walk(place):
        wanted = folder_mode if path.is_dir() else file_mode
        if stat.S_IMODE(path.stat().st_mode) != wanted:
            path.chmod(wanted)


def _walk(place: Path) -> Iterator[Path]:
    """A file or folder and all below it, links left out."""
    yield place
    if place.is_dir():
        yield from (path for path in place.rglob("*") if not path.is_symlink())


def _read_modes(folder: Path) -> tuple[int, int]:
    """The modes of a new file and of a new folder: asked of the system, as lists of rights may count beside the umask.

    Reading the umask itself would mean to set it for a moment, for all threads.
    """
    trial = folder / f".{uuid.uuid4().hex}.writing"
    with trial.open("xb") as file:
        file_mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    trial.unlink()
    trial.mkdir()
    folder_mode = stat.S_IMODE(trial.stat().st_mode)
    trial.rmdir()
    return file_mode, folder_mode
