"""Every notebook runs from top to bottom, offline, in an empty folder."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "recipes" / "notebooks").glob("*.ipynb"))
SECONDS = 300
"""A notebook takes half a minute; a busy machine is allowed much more."""


@pytest.mark.slow
@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("path", PATHS, ids=[path.stem for path in PATHS])
# The kernel's client leaves its loop and sockets to the garbage collector.
@pytest.mark.filterwarnings("default::ResourceWarning", "default::DeprecationWarning")
def test_notebooks_run_offline_from_top_to_bottom(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": str(ROOT)}
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute(env=environment)
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert len(code) >= 5
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


def test_all_of_them_are_here():
    assert len(PATHS) == 4
