"""Notebooks are kept as they ran: whole, in order, without an error, and without anything of the machine."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
PATHS = sorted((ROOT / "recipes" / "notebooks").glob("*.ipynb"))
NAMES = ("compare_and_advise", "own_data", "publish", "quickstart")

MACHINE = re.compile(
    # A path with a folder in it, where a word does not go on in front: "and/or" and "</td>" are none.
    r"(?<![\w.~<:/*-])/(?:root|home|Users|tmp|opt|usr|var|work|mnt|private)/[\w.-]+|[A-Z]:\\\\|file://"
    # A moment, an address in memory, a machine's own name.
    r"|\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d|\bat 0x[0-9a-f]{6,}|\bhostname\b"
)


def find_problems(notebook):
    """What a reader should not meet."""
    problems, expected = [], 1
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if cell.execution_count != expected:
            problems.append(f"{cell.source[:40]!r} ran as number {cell.execution_count}, not {expected}")
        expected += 1
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                problems.append(f"{cell.source[:40]!r} ended in {output.get('ename', 'words on stderr')}")
            if found := MACHINE.search(json.dumps(output)):
                problems.append(f"{cell.source[:40]!r} shows {found[0]!r}")
    return problems


def test_there_are_these_and_the_readme_links_them():
    assert tuple(path.stem for path in PATHS) == NAMES
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"(recipes/notebooks/{name}.ipynb)" in readme for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_whole_in_order_and_of_no_machine(name):
    path = ROOT / "recipes" / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert find_problems(notebook) == []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 5
    assert sum(bool(cell.outputs) for cell in code) >= 4
    assert any("text/html" in output.get("data", {}) for cell in code for output in cell.outputs)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert not any(cell.metadata for cell in notebook.cells)
    assert path.stat().st_size < 500_000


def test_planted_problems_are_found():
    cell = nbformat.v4.new_code_cell("1 / 0", execution_count=2)
    cell.outputs = [
        nbformat.v4.new_output("error", ename="ZeroDivisionError", evalue="", traceback=[]),
        nbformat.v4.new_output("stream", name="stderr", text="a warning"),
        nbformat.v4.new_output("stream", name="stdout", text="wrote /home/me/runs"),
        nbformat.v4.new_output("execute_result", data={"text/plain": "<Styler at 0x7f93995264d0>"}),
        nbformat.v4.new_output("execute_result", data={"text/html": "<td>and/or</td> 1/2 runs/quickstart"}),
    ]
    problems = find_problems(nbformat.v4.new_notebook(cells=[cell]))
    assert len(problems) == 5
    for word, problem in zip(("number 2", "Zero", "stderr", "/home/me", "0x7f"), problems, strict=True):
        assert word in problem


def test_paths_of_the_machine_are_taken_out_before_outputs_are_kept(tmp_path):
    spec = importlib.util.spec_from_file_location("run_notebooks", ROOT / "recipes/scripts/run_notebooks.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    value = {"text/plain": [f"wrote {tmp_path}/runs/x", f"{sys.prefix}/lib/a.py", f"{tmp_path}2/y"]}
    cleaned = script.clean(value, tmp_path)["text/plain"]
    assert cleaned[:2] == ["wrote runs/x", "ENVIRONMENT/lib/a.py"]
    cell = nbformat.v4.new_code_cell("x", metadata={"tags": ["a"]})
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"language_info": {"name": "python", "version": "3.1"}})
    script.tidy(notebook, tmp_path)
    assert notebook.metadata["language_info"] == {"name": "python"}
    assert notebook.cells[0].metadata == {}
