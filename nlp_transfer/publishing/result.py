"""The base class of every result: a record with a display in terminal and notebook, which is saved and loaded."""

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from nlp_transfer.models.digests import FileDigests, seal_record
from nlp_transfer.publishing.views import copy_record, read_record, show_plain, to_json_value, write_view

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["PAGE", "Result"]

PAGE = "report.html"
"""Name of every page."""


class Result:
    """A finished piece of work.

    A subclass names its file and the advice for a missing or damaged file, checks a loaded record (``check``), shows
    itself in a terminal (``__rich__``) and writes its page (``render``).

    Args:
        record: Content of the JSON file. It is copied; numbers that are not finite become None.
        folder: Folder of the result; None for a result in memory alone.

    Attributes:
        record: The copied record, in JSON values.
        folder: The folder.
    """

    file: ClassVar[str]
    """Name of the JSON file, which identifies the kind of a folder."""

    name: ClassVar[str]
    """Name of such a result in messages, with its article."""

    missing: ClassVar[str]
    """Advice in the message about a missing file."""

    damaged: ClassVar[str]
    """Advice in the message about a damaged file."""

    width: ClassVar[int] = 100
    """Characters per line, printed without a terminal."""

    def __init__(self, record: Mapping[str, Any], folder: Path | str | None = None) -> None:
        self.record: dict[str, Any] = to_json_value(record)
        self.folder = None if folder is None else Path(folder)
        self.digests: FileDigests = {}

    @property
    def place(self) -> Path:
        """The folder of a result that has one."""
        assert self.folder is not None, "a result in memory has no folder"
        return self.folder

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Load a saved result.

        Args:
            folder: The ``output_dir`` of the result.

        Returns:
            The loaded result.

        Raises:
            ArtifactError: The file is missing or damaged, or was changed after it was saved.
            StorageError: The machine could not read the file.
        """
        place = cls.locate(Path(folder))
        record, digests = read_record(place, cls.check, name=cls.name, missing=cls.missing, damaged=cls.damaged)
        found = cls(record, folder)
        found.digests = digests.get("files", {})
        return found

    @classmethod
    def locate(cls, folder: Path) -> Path:
        """Path of the JSON file in a folder."""
        return folder / cls.file

    @staticmethod
    def check(record: dict[str, Any]) -> None:
        """Refuse a record of another kind.

        Raises:
            ValueError, KeyError, TypeError: The record is of another kind.
        """

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values, copied."""
        return copy_record(self.record)

    def save(self, folder: Path | str | None = None) -> None:
        """Write the page and the JSON file, each atomically.

        Args:
            folder: Folder to write to, created if needed; the result's folder where absent.

        Raises:
            StorageError: The machine could not write.
        """
        place = self.place if folder is None else Path(folder)
        sealed = seal_record(self.record, files=self.digests or None)
        # Characters beyond ASCII are kept; a lone surrogate, which UTF-8 cannot encode, becomes an escape.
        text = json.dumps(sealed, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # The record is written last: it marks the folder as finished.
        write_view(place, {PAGE: self.render(is_page=True)}, {self.file: text})

    @abstractmethod
    def render(self, *, is_page: bool) -> str:
        """Render the result as HTML without scripts: a whole page, or one fragment for a notebook.

        Args:
            is_page: Whether to render a whole page.
        """
        raise NotImplementedError

    @abstractmethod
    def __rich__(self) -> "RenderableType":
        raise NotImplementedError

    def __str__(self) -> str:
        return show_plain(self.__rich__(), width=self.width)

    def _repr_html_(self) -> str:
        """Tables and pictures for a notebook, as one fragment of HTML without scripts."""
        return self.render(is_page=False)
