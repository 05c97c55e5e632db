"""What the tests of bad inputs share: a case, the command line called in this process, trees held side by side."""

import hashlib
import io
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import datasets
import pytest

from nlp_transfer import cli

__all__ = [
    "LEFTOVERS",
    "Case",
    "Outcome",
    "call_cli",
    "check_counted",
    "check_refused",
    "hash_tree",
    "list_leftovers",
    "make_csv",
    "make_rows",
    "make_run",
    "write",
]

LEFTOVERS = (".writing", ".tmp", ".partial")
"""How files end while they are written."""


@dataclass(frozen=True)
class Outcome:
    """What a call of the command line gave."""

    status: int
    stdout: str
    stderr: str

    @property
    def said(self) -> str:
        """Everything that the user saw, on one line, because rich breaks lines at the terminal's width."""
        return re.sub(r"\s+", " ", f"{self.stderr} {self.stdout}")


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        name: What is wrong.
        make: Writes the input into the folder it is given, which is also the current one.
        args: Of the command line.
        words: What the message must hold: the place (file, row, key), and the way out.
        patch: Changes the machine for the time of the call.
        stdin: What is piped in.
    """

    name: str
    make: Callable[[Path], object]
    args: Sequence[str]
    words: tuple[str, ...]
    patch: Callable[[pytest.MonkeyPatch], None] | None = None
    stdin: str = ""

    def __str__(self) -> str:
        return self.name


def call_cli(
    args: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, stdin: str = ""
) -> Outcome:
    """Call the command line in this process, as its entry point does."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["nlp-transfer", *map(str, args)])
        patch.setattr(sys, "excepthook", sys.excepthook)  # main() puts its own there
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        patch.setenv("COLUMNS", "200")
        capsys.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as leaving:
            code = leaving.code
            status = code if isinstance(code, int) else int(code is not None)
    shown = capsys.readouterr()
    return Outcome(status, shown.out, shown.err)


def hash_tree(folder: Path) -> dict[str, str]:
    """Name everything under a folder, with the hash of every file."""
    return {path.relative_to(folder).as_posix(): _hash_entry(path) for path in sorted(folder.rglob("*"))}


def _hash_entry(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"


def list_leftovers() -> list[str]:
    """Files in the cache that somebody began to write and left."""
    cache = Path(datasets.config.HF_DATASETS_CACHE)
    return [path.name for path in cache.rglob("*") if path.name.endswith(LEFTOVERS)]


def check_refused(
    case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Hold one case against its promise: status 2, a message with place and way out, nothing left, nothing harmed."""
    case.make(folder)
    before = hash_tree(folder)
    with monkeypatch.context() as patch:
        if case.patch:
            case.patch(patch)
        outcome = call_cli(case.args, monkeypatch, capsys, stdin=case.stdin)
    assert outcome.status == 2, outcome
    assert "Traceback" not in outcome.said, outcome.stderr
    missing = [word for word in case.words if word not in outcome.said]
    assert not missing, f"{missing} not in: {outcome.stderr}"
    assert len(case.words) >= 2, "a case names the place and the way out"
    assert not outcome.stdout, "what is refused writes nothing to stdout"
    assert hash_tree(folder) == before
    assert not list_leftovers()


class Named(Protocol):
    """Whatever has a name: a case of a table."""

    @property
    def name(self) -> str: ...


def check_counted(cases: Sequence[Named], request: pytest.FixtureRequest, *, at_least: int) -> None:
    """Hold a table of cases against the tests that pytest collected from the file: one for each, none left out."""
    names = [case.name for case in cases]
    assert len(set(names)) == len(names) >= at_least
    if request.config.getoption("keyword") or len(request.session.items) == 1:
        return  # Somebody picks single tests.
    collected = [
        value.name
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == request.path and hasattr(item, "callspec")
        for key, value in item.callspec.params.items()
        if key in ("case", "fault")
    ]
    assert collected == names


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    """A function that writes a file, and the folders above it."""

    def write_into(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return write_into


def make_rows(num_rows: int = 12, labels: Sequence[str] = ("bad", "good")) -> list[tuple[str, str]]:
    """Texts that all differ, with their labels in turn."""
    return [(f"text number {row} is here", labels[row % len(labels)]) for row in range(num_rows)]


def make_csv(rows: Sequence[Sequence[str]], header: Sequence[str] = ("text", "label")) -> str:
    """A csv file of plain cells."""
    return "\n".join(",".join(row) for row in [header, *rows]) + "\n"


def make_run(data: str, *more: str) -> list[str]:
    """Arguments of a run that is as short as can be, with the encoder that lies in the current folder."""
    return [
        "run",
        "sentiment/full",
        "encoder.name=encoder",
        f"data.path={data}",
        "report.output_dir=runs/try",
        "training.max_steps=1",
        "training.device=cpu",
        "evaluation.tfidf=false",
        "evaluation.resamples=100",
        *more,
    ]
