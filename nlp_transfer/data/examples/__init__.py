"""Data sets that ship inside the package, each a folder of this package with its splits."""

from pathlib import Path

__all__ = ["find_example", "list_examples"]


def list_examples() -> list[str]:
    """List the names that ``data.path`` understands without a file.

    Example:
        >>> "reviews" in list_examples()
        True
    """
    here = Path(__file__).parent
    return sorted(entry.name for entry in here.iterdir() if entry.is_dir() and any(entry.glob("train.*")))


def find_example(name: str) -> Path | None:
    """Find the folder of a bundled data set.

    Args:
        name: What ``data.path`` says.

    Returns:
        Its folder, or None where no data set of that name ships.

    Example:
        >>> find_example("nothing") is None
        True
    """
    return Path(__file__).parent / name if name in list_examples() else None
