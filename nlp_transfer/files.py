"""Files and folders: find out why a path cannot be used, and write files with the permissions that the umask gives."""

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
"""Failures of the machine; all others are due to a path or its permissions."""

DENIED = frozenset({errno.EACCES, errno.EPERM})


def find_obstacle(path: str | Path) -> str:
    """Say why a path cannot be reached.

    `Path.exists` is False for a broken link or a forbidden folder as for a path that does not exist; this function
    tells them apart.

    Args:
        path: A file or folder.

    Returns:
        The cause, as a part of a sentence; empty if the path exists, and also if there is simply nothing.

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
        return ""  # "a.csv/b" does not exist.
    except (OSError, ValueError) as error:
        return name_cause(error)
    return ""


def find_unreadable(folder: Path) -> tuple[Path, OSError] | None:
    """Look for a file without read permission, because libraries call such a file damaged or missing.

    Args:
        folder: Only its files and those one level below are opened.

    Returns:
        The first such file and the error; None if every file opens.
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
    """Turn a failed read into an error that says if permissions, the disk or the file itself is at fault.

    Args:
        where: The name that the message starts with.
        error: The exception.
        kind: Class of the error to raise if the user's input is at fault.
        way_out: What to do about a file that may be read but is damaged; a whole sentence.

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
    """Turn a failed write into an error that says if the path or the machine, such as a full disk, is at fault.

    Args:
        where: The name that the message starts with.
        error: The exception.
        what: What failed.
        way_out: What to do if the machine is at fault; a whole sentence.
        elsewhere: What to do if the path is at fault; the end of a sentence.

    Returns:
        The error to raise: `StorageError` for the machine, `OutputError` for the path.

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
    """Check that a file can be written, before the work whose result goes there.

    Args:
        path: The file; its folder must exist.
        where: The name that the message starts with.

    Raises:
        OutputError: The path is a folder, its parent is not a folder, or nothing may be written there.
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
    """Check that a folder can be made and filled, before the work whose results go there; the check leaves nothing.

    Args:
        folder: It need not exist.
        where: The name that the message starts with.

    Raises:
        OutputError: The path is a file or below a file, or nothing may be written there.
        StorageError: The disk is full or failing.
    """
    made: list[Path] = []
    try:
        for place in (*reversed(folder.parents), folder):
            # A broken link is no folder, but mkdir fails on it because the name is taken.
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
        with contextlib.suppress(OSError):  # Another program may have written there by now.
            for place in reversed(made):
                place.rmdir()


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a temporary file beside the path, sync it and rename it to the path.

    Args:
        path: The final path.
        content: Bytes, or text that is written as UTF-8.

    Raises:
        OutputError: Nothing may be written there.
        StorageError: The disk is full or failing; an earlier file stays as it was.
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
        # After success the temporary file is gone; a signal may end a command anywhere.
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder with its content but without its permissions: the copy has those of new files and folders.

    Args:
        source: A folder.
        target: A path that does not exist yet.

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
    """Give files that a library wrote the permissions that new files get in the same folder.

    Safetensors files and Python's temporary files are readable by their owner alone, whatever the umask; other users
    must be able to read a folder that is handed on.

    Args:
        place: A file, or a folder with all of its content.

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
    """A file or folder and everything below it, without links."""
    yield place
    if place.is_dir():
        yield from (path for path in place.rglob("*") if not path.is_symlink())


def _read_modes(folder: Path) -> tuple[int, int]:
    """The permissions of a new file and of a new folder, read from trial ones because access control lists also count.

    Reading the umask itself would mean setting it for a moment, for all threads.
    """
    trial = folder / f".{uuid.uuid4().hex}.writing"
    with trial.open("xb") as file:
        file_mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
    trial.unlink()
    trial.mkdir()
    folder_mode = stat.S_IMODE(trial.stat().st_mode)
    trial.rmdir()
    return file_mode, folder_mode
