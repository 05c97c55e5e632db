"""What was decided and left out while tables were read, for whoever has to say it."""

import warnings
from dataclasses import dataclass, field

from nlp_transfer.contracts import DataFacts
from nlp_transfer.errors import TransferWarning
from nlp_transfer.recipe.formats import name_delimiter

__all__ = ["Findings"]


@dataclass
class Findings:
    """What reading a table found beside its rows.

    Attributes:
        delimiters: Files whose cells are separated by another character than their ending promises, and by which.
        notes: What else was decided for the user, one sentence each.
        warnings: What the user may want to change, one sentence each.
        dropped: Count of rows that were left out, by reason.
    """

    delimiters: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str, count: int, warning: str) -> None:
        """Count rows that were left out, and say why."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count
        self.warnings.append(warning)

    def take(self, other: "Findings") -> None:
        """Add what another reading found."""
        self.delimiters |= other.delimiters
        self.notes += other.notes
        self.warnings += other.warnings
        for reason, count in other.dropped.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def warn(self) -> None:
        """Warn in Python's way that rows were left out, where nobody else says it."""
        if self.dropped:
            warnings.warn(" ".join(self.warnings), TransferWarning, stacklevel=3)

    def list_notes(self) -> list[str]:
        """The notes, files that share a delimiter in one of them.

        Example:
            >>> Findings(delimiters={"a.csv": ";", "b.csv": ";"}).list_notes()
            ['a.csv, b.csv: cells are taken to be separated by ";". Name another character with data.delimiter.']
        """
        found: dict[str, list[str]] = {}
        for where, delimiter in self.delimiters.items():
            found.setdefault(delimiter, []).append(where)
        chosen = [
            f"{', '.join(files)}: cells are taken to be separated by {name_delimiter(delimiter)}. "
            "Name another character with data.delimiter."
            for delimiter, files in found.items()
        ]
        return [*chosen, *self.notes]

    def add_to(self, facts: DataFacts) -> None:
        """Write everything into the facts of a data set."""
        facts.notes += self.list_notes()
        facts.warnings += self.warnings
        for reason, count in self.dropped.items():
            facts.dropped[reason] = facts.dropped.get(reason, 0) + count
