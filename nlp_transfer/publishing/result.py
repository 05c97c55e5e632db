"""What every result is: a record that shows itself in a terminal and in a notebook, is written, and read back."""

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

    A child names its file and what is said where that is missing, checks what it reads, shows itself in a terminal
    (``__rich__``) and writes its page (``render``).

    Args:
        record: What the JSON file holds. It is copied; figures that are not finite become None.
        folder: Where it is, or goes; None where it is in memory alone.

    Attributes:
        record: The same, as JSON holds it.
        folder: The same.
    """

    file: ClassVar[str]
    """Name of the JSON file, which says of what kind a folder is."""

    name: ClassVar[str]
    """What it is, with its article."""

    missing: ClassVar[str]
    """The way out where there is none."""

    damaged: ClassVar[str]
    """The way out where it is damaged."""

    width: ClassVar[int] = 100
    """Letters of a line, printed without a terminal."""

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
        """Read what was written.

        Args:
            folder: The ``output_dir`` that it was given.

        Returns:
            The same again.

        Raises:
            ArtifactError: There is none, it is damaged, or it is not the one that was saved.
            StorageError: The machine could not read it.
        """
        place = cls.locate(Path(folder))
        record, digests = read_record(place, cls.check, name=cls.name, missing=cls.missing, damaged=cls.damaged)
        found = cls(record, folder)
        found.digests = digests.get("files", {})
        return found

    @classmethod
    def locate(cls, folder: Path) -> Path:
        """The JSON file of a folder."""
        return folder / cls.file

    @staticmethod
    def check(record: dict[str, Any]) -> None:
        """Refuse what is no such record.

        Raises:
            ValueError, KeyError, TypeError: It is none.
        """

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values, copied."""
        return copy_record(self.record)

    def save(self, folder: Path | str | None = None) -> None:
        """Write the page and the JSON file, each whole or not at all.

        Args:
            folder: Where to, made where absent; its own where absent.

        Raises:
            StorageError: The machine could not write.
        """
        place = self.place if folder is None else Path(folder)
        sealed = seal_record(self.record, files=self.digests or None)
        # Letters beyond ASCII stay; half of a surrogate pair, which UTF-8 cannot hold, becomes an escape.
        text = json.dumps(sealed, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # The record comes last: it says that the folder is finished.
        write_view(place, {PAGE: self.render(is_page=True)}, {self.file: text})

    @abstractmethod
    def render(self, *, is_page: bool) -> str:
        """Write it as HTML without scripts: a whole page, or one fragment for a notebook.

        Args:
            is_page: Whether it is a whole page.
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
