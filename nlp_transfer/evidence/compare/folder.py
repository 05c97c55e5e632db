"""The folder of a comparison: locked, and held to one table and one encoder."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from nlp_transfer.errors import OutputError
from nlp_transfer.files import explain_writing
from nlp_transfer.models.digests import open_record, seal_record
from nlp_transfer.publishing.artifact import write_atomically
from nlp_transfer.runs.ownership import list_differences

__all__ = ["claim_place", "read_plan", "write_plan"]

PLAN_FILE = "plan.json"
LOCK_FILE = ".lock"


@contextmanager
def claim_place(folder: Path) -> Iterator[None]:
    """Lock the folder of a comparison while it runs.

    Args:
        folder: Made where it is absent.

    Yields:
        Nothing; the lock ends with the block, and with the process.

    Raises:
        OutputError: Another comparison is at work there, or something else lies there.
        StorageError: It cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK_FILE)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise OutputError(f"out: {folder} is in use by a comparison that is still going. Wait for it.") from error
    except OSError as error:
        raise explain_writing(f"out: {folder}", error, what="cannot be written to") from error
    try:
        strangers = [entry.name for entry in folder.iterdir() if entry.name != LOCK_FILE]
        if strangers and not (folder / PLAN_FILE).is_file():
            raise OutputError(
                f"out: {folder} holds files that no comparison left, such as {sorted(strangers)[0]}. "
                "Name another folder."
            )
        yield
    finally:
        lock.release()
        (folder / LOCK_FILE).unlink(missing_ok=True)


def read_plan(folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read what an earlier, broken-off or shorter comparison decided.

    Args:
        folder: Of the comparison.
        settings: Of this one: data, encoder, task.

    Returns:
        What it decided; empty where there was none.

    Raises:
        OutputError: It was about something else.
    """
    path = folder / PLAN_FILE
    if not path.is_file():
        return {}
    try:
        plan, _ = open_record(json.loads(path.read_text(encoding="utf-8")), path)
        differences = list_differences(plan["settings"], settings)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(f"out: {path} cannot be read. Name another folder.") from error
    if plan["settings"].get("rows") != settings.get("rows"):
        # Two hashes would tell a reader nothing.
        differences = ["other rows", *(each for each in differences if not each.startswith("rows:"))]
    if differences:
        raise OutputError(
            f"out: {folder} holds another comparison ({', '.join(differences[:3])}; there -> now). Name another folder."
        )
    return dict(plan)


def write_plan(folder: Path, settings: Mapping[str, Any], decided: Mapping[str, Any]) -> None:
    """Keep what this comparison is about and what it decided.

    Raises:
        StorageError: The disk failed.
    """
    write_atomically(folder / PLAN_FILE, json.dumps(seal_record({"settings": settings, **decided}), indent=2) + "\n")
