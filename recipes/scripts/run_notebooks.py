"""Run the notebooks from top to bottom, offline, and keep them with their outputs.

    python recipes/scripts/run_notebooks.py                       # all of recipes/notebooks
    python recipes/scripts/run_notebooks.py --check quickstart    # run it, change nothing

Each runs in an empty folder of its own. What only this machine knows is taken out: its paths, versions of the kernel,
times of execution. Needs the extra `test`.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[1] / "notebooks"
SECONDS_PER_CELL = 600
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}


def execute(notebook: Any, folder: Path) -> None:
    """Run every cell in order, in place; the first error ends it."""
    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name=KERNEL["name"],
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"})


def clean(value: Any, folder: Path) -> Any:
    """Take paths of this machine out of outputs."""
    if isinstance(value, dict):
        return type(value)({key: clean(item, folder) for key, item in value.items()})
    if isinstance(value, list):
        return [clean(item, folder) for item in value]
    if not isinstance(value, str):
        return value
    for place, name in ((folder.resolve(), ""), (folder, ""), (Path(sys.prefix), "ENVIRONMENT/"), (Path.home(), "~/")):
        value = re.sub(rf"{re.escape(str(place))}(/|\b)", name, value)
    return value


def tidy(notebook: Any, folder: Path) -> None:
    """Leave what the notebook says, and nothing of where and when it was said."""
    notebook.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", nbformat.from_dict({})
        if cell.cell_type == "code":
            cell.outputs = [clean(output, folder) for output in cell.outputs]
    nbformat.validate(notebook)


def main() -> int:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="without .ipynb; all where absent")
    parser.add_argument("--check", action="store_true", help="run them, and leave the files as they are")
    options = parser.parse_args()
    paths = [FOLDER / f"{name}.ipynb" for name in options.names] or sorted(FOLDER.glob("*.ipynb"))
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            execute(notebook, Path(folder))
            tidy(notebook, Path(folder))
        if not options.check:
            nbformat.write(notebook, path)
        print(f"{path.name}: {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
